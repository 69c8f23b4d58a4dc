"""The dataclasses that type the options of each config group."""
