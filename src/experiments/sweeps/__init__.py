"""Sweeps of many runs: their plan, queue, workers and summary."""
