"""Documentation: the site builds without warnings, loads nothing from other hosts and fits on a phone."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from tests.docs.blocks import COMMANDS, MAKEFILE, PAGES, ROOT, keys

from experiments.config.registry import CONF

LONGEST_BUILD_SECONDS = 60
PHONE_WIDTH = 390


def build_site(folder: Path, config: Path = ROOT / "mkdocs.yml") -> tuple[int, str]:
    """Builds a site as `make docs` does, without network access, and returns exit status and output."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(folder),
    ]
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_BUILD_SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    status, output = build_site(folder)
    assert status == 0, output
    return folder


def test_make_docs_builds_in_strict_mode() -> None:
    (options,) = re.findall(r"mkdocs build (.*)", MAKEFILE)
    assert options == "--strict"  # with --quiet, warnings are not counted


@pytest.mark.slow
def test_broken_links_stop_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    links = ("nothing.md", "#nothing", "/index.html", "none.svg", "other.md#nothing")
    (tmp_path / "docs" / "index.md").write_text("\n\n".join(f"[link]({link})" for link in links))
    (tmp_path / "docs" / "other.md").write_text("# Other")
    config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "docs", "hooks": [], "nav": [{"Home": "index.md"}]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    status, output = build_site(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert status == 1
    assert "Aborted with 6 warnings in strict mode!" in output, output  # also: other.md is not in the navigation


class References(HTMLParser):
    """Addresses that a page loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {str(found["id"])} if "id" in found else set()
        address = found.get("href") if tag == "link" else found.get("src") or found.get("srcset")
        self.loaded += [address] if address else []


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    loaded = {address for page in pages for address in References(page).loaded}
    assert len(pages) >= len(PAGES) - 2
    assert [address for address in loaded if re.match(r"(https?:)?//", address)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles) == []


@pytest.mark.slow
def test_search_covers_all_pages_except_the_changelog(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert pages - found == {"404.html", "changelog.html"}


@pytest.mark.slow
def test_long_names_in_tables_break_between_their_parts(site: Path) -> None:
    page = (site / "guarantees.html").read_text(encoding="utf-8")
    assert "test_<wbr>equality.<wbr>py::<wbr>test_<wbr>loops_<wbr>agree_<wbr>on_<wbr>cnn" in page
    assert "<code>from_arrays</code>" in page


@pytest.mark.slow
def test_site_lists_each_key_and_each_option(site: Path) -> None:
    page = site / "reference" / "configuration.html"
    listed = {key for key in keys() if not key.endswith("_target_")}
    commands = {name.partition(".")[2] for name in References(page).anchors if name.partition(".")[0] in COMMANDS}
    assert sorted(listed - References(page).anchors - commands) == []
    text = page.read_text(encoding="utf-8")
    options = {path.stem for path in Path(CONF).glob("*/*.yaml") if path.parent.name != "shared"}
    assert [option for option in sorted(options) if f"<code>{option}</code>" not in text] == []


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs a browser: install chromium and chromium-driver",
)
def test_no_page_scrolls_sideways_on_a_phone(site: Path, tmp_path: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    size = {"width": PHONE_WIDTH, "height": 800, "pixelRatio": 1.0}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": size})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        wide: dict[str, int] = {}
        for page in sorted(site.rglob("*.html")):
            driver.get(page.as_uri())
            width = driver.execute_script("return document.documentElement.scrollWidth")
            wide |= {page.name: width} if width > PHONE_WIDTH else {}
        assert wide == {}
    finally:
        driver.quit()
