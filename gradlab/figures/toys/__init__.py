"""The optimization toys with every estimator: where descent ends, and where theory says it does."""
