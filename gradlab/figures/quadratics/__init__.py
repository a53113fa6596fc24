"""The bias of every estimator on a hundred random quadratics, exact and as draws show it."""
