"""Comparison of runs: a table of runs, the differences of two, and notes on them."""
