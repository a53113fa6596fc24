"""Bias, standard deviation and RMSE of one draw against temperature, on four problems."""
