"""Rows in, matplotlib figure out; nothing here computes."""
