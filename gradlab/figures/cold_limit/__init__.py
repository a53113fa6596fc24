"""How Gumbel-Rao and straight-through Gumbel-softmax approach ZGR as the temperature goes to 0."""
