"""Whether a ranking of estimators predicts training: criteria against the losses reached."""
