"""Checkpoints of a run: written, checked, found and restored."""
