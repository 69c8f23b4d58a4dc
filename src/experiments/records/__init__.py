"""What a run writes about itself, and the only code that reads it back."""
