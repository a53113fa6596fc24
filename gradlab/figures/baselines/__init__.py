"""The variance of unbiased estimators on two toy problems, against the logit of their bits."""
