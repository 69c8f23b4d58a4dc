"""Start-up, signals and output of all commands."""
