"""Decoded pixels and computed features, kept for later epochs and runs."""
