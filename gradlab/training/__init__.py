"""Real models: data sets, layers, discrete autoencoders and deep stochastic networks."""
