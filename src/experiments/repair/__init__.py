"""What `doctor` finds and repairs, a module for each concern; each function that finds something changes nothing."""
