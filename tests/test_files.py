"""Files that several processes share."""

from pathlib import Path

import pytest

from experiments.errors import DataError
from experiments.files import exclusive, only_existing_files


def test_inner_block_does_not_lift_ban_on_new_files(tmp_path: Path) -> None:
    with only_existing_files(True), only_existing_files(False), pytest.raises(DataError, match=r"data\.path='.*data'"):
        exclusive(tmp_path / "data").__enter__()
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "data"):
        pass
