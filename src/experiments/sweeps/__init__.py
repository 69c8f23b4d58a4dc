"""Many runs as one thing: planned, queued in a study, worked off by processes, and summed up."""
