"""The types of every value a run can have, and the checks that need no heavy import."""
