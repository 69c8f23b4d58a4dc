"""Caches of decoded images and computed features for later epochs and runs."""
