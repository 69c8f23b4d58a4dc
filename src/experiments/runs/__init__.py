"""One run: assembled, resumed, trained, and its results."""
