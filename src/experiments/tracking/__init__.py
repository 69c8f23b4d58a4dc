"""The record of a run: its tracker, the journal on disk, and its delivery to MLflow."""
