"""Findings of `doctor` and their repairs, one module per concern. Only repairs change anything."""
