"""Policy gradients over sequences of tokens: estimators on groups, and what each of them estimates.

A group is G sequences sampled for one prompt. An estimator gives every token of the group a
coefficient; the estimate is the sum of coefficient times score.
"""
