"""The types of every value a run can have, and the checks that need no heavy import."""

from experiments.config.check import check, check_values
from experiments.config.registry import register

__all__ = ["check", "check_values", "register"]
