"""The atlas of a sweep: where ST-ZGR dominates Gumbel-Rao, and which estimator is best where."""
