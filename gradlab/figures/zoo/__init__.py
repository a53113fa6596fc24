"""Every estimator at equal cost: squared bias against the variance of as many as a budget pays."""
