"""Types and ranges of all configuration values, and the checks that need no heavy import."""

from experiments.config.registry import register
from experiments.config.validation import check, check_values

__all__ = ["check", "check_values", "register"]
