"""The types of every value a run can have, and the checks that need no heavy import."""

from experiments.config.check import check
from experiments.config.registry import register

__all__ = ["check", "register"]
