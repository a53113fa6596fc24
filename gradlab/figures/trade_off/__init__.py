"""Squared bias against variance of one draw: one curve a family, and whose curve is the better."""
