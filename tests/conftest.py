"""Fixtures shared by every test."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos, MNIST and weights that EXPERIMENTS_REAL_DATA names."""
    folder = os.environ.get("EXPERIMENTS_REAL_DATA")
    if not folder:
        pytest.skip("EXPERIMENTS_REAL_DATA does not name a folder with cats_dogs/, mnist/ and weights/")
    return Path(folder)
