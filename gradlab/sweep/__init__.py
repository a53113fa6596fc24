"""Sweeps: grids of problems, estimators and temperatures, on all cores or a cluster, resumable.

A grid says what is asked, a store keeps every row as soon as it is there, and running fills the
store with the cells that it still lacks.
"""
