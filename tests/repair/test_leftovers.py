"""Unfinished files of killed processes in output folders."""

from pathlib import Path

from experiments.checkpoints.store import commit, latest_valid
from experiments.repair.base import treat
from experiments.repair.leftovers import left_over, output_folders
from experiments.tracking.liveness import run_lock


def killed(folder: Path) -> Path:
    """Writes a committed and an unfinished checkpoint, unfinished small files, and an upload no longer needed."""
    checkpoints = folder / "checkpoints"
    (checkpoints / "best" / "best-2_temp").mkdir(parents=True)
    for name in ("ckpt-6.index", "ckpt-6.data-00000-of-00001"):
        (checkpoints / name).write_text(name)
    commit(str(checkpoints / "ckpt-6"), {"epoch": 1})
    (checkpoints / "ckpt-12_temp").mkdir()
    unfinished = ("ckpt-12_temp/part-00000", "ckpt-12.index", "ckpt-12.json.tmp", "best/best.json.tmp")
    for name in (*unfinished, "best/best.json"):
        (checkpoints / name).write_text(name)
    (folder / ".uploads" / "ckpt-6.tmp").mkdir(parents=True)
    (folder / "run.lock").touch()
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_run_folders_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("outputs/day/time", "multirun/day/time/0", "multirun/day/time/1"):
        killed(tmp_path / name)
    (tmp_path / "outputs" / "day" / "link").symlink_to(tmp_path / "multirun")
    roots = [str(tmp_path / "outputs"), str(tmp_path / "multirun"), str(tmp_path / "absent")]
    found = [path.relative_to(tmp_path).as_posix() for path in output_folders(roots)]
    assert found == ["multirun/day/time/0", "multirun/day/time/1", "outputs/day/time"]
    assert output_folders([str(tmp_path / "outputs/day/time")]) == [tmp_path / "outputs/day/time"]


def test_leftovers_are_listed_and_removed_with_fix(tmp_path: Path) -> None:
    before = files(killed(tmp_path))
    (found,) = left_over([tmp_path])
    assert found.state.startswith(
        ".uploads/ckpt-6.tmp, checkpoints/best/best-2_temp, checkpoints/best/best.json.tmp, checkpoints/ckpt-12.index, "
        "checkpoints/ckpt-12.json.tmp, checkpoints/ckpt-12_temp ("
    )
    assert treat(found, fix=False).done == "fix=true removes it"
    assert files(tmp_path) == before
    assert treat(found, fix=True).done == "removed 6"
    latest = latest_valid(tmp_path / "checkpoints")
    assert latest is not None
    assert latest.state == {"epoch": 1}
    assert (tmp_path / "checkpoints" / "best" / "best.json").exists()
    assert list(left_over([tmp_path])) == []


def test_folder_in_use_is_not_changed(tmp_path: Path) -> None:
    killed(tmp_path)
    (found,) = left_over([tmp_path])
    with run_lock(tmp_path):
        assert list(left_over([tmp_path])) == []
        assert treat(found, fix=True).failed
    assert (tmp_path / "checkpoints" / "ckpt-12.index").exists()


def test_uncommitted_checkpoints_of_older_versions_are_kept(tmp_path: Path) -> None:
    killed(tmp_path)
    (tmp_path / "checkpoints" / "ckpt-6.json").unlink()
    (found,) = left_over([tmp_path])
    assert "ckpt-6" not in found.state.replace(".uploads/ckpt-6.tmp", "")
