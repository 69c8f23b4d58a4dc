"""Tracking of runs: the tracker, its journal on disk, and the delivery of the journal to MLflow."""
