"""Figures on policy gradients over sequences, one module each; all of their rows are exact.

The policies are small and shipped, so that every sequence and every group of them is summed.
"""
