"""README: length and pictures; links of the pages outside of docs/. tests/docs tests the commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 150
LARGEST_PICTURE = 200_000


def test_readme_is_short_and_names_no_folder_of_the_author() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert re.findall(r"/(?:work|home|root|tmp|usr)/\S*", README) == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(page: str) -> None:
    """The build of the site checks links of docs/."""
    targets = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")))
    assert [target for target in targets if not (target.startswith("https://") or (ROOT / target).exists())] == []


@pytest.mark.parametrize("picture", re.findall(r"!\[[^]]+\]\(([^)]+)\)", README))
def test_picture_is_small(picture: str) -> None:
    assert 1_000 < (ROOT / picture).stat().st_size < LARGEST_PICTURE
