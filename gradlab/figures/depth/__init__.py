"""Bias and variance of gradient estimators layer by layer in deep stochastic networks."""
