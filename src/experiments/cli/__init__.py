"""What all commands share: start-up, signals and output."""
