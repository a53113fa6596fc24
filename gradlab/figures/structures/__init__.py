"""Estimators on subsets, permutations, trees and chains: bias by degree, and bias with noise."""
