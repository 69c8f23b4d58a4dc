"""Headless Chromium and the pages that `make ui` and TensorBoard serve: what a user sees, and the clicks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120
Found = TypeVar("Found")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1600,3000"
)
TEXT = """
function text(node) {
    if (node.nodeType === Node.TEXT_NODE) return node.textContent;
    if (["STYLE", "SCRIPT", "DOM-MODULE", "TEMPLATE"].includes(node.nodeName)) return "";
    const inside = node.shadowRoot || (node.nodeName === "IFRAME" && node.contentDocument) || node;
    const roots = inside === node ? [node] : [inside, node];
    return roots.map(root => Array.from(root.childNodes).map(text).join(" ")).join(" ");
}
return text(document.body).replace(/\\s+/g, " ")
"""
# Text that a parent cuts off ends in an ellipsis here too, because the page shows a user no more of it.
VISIBLE = """
function frame(node) {
    let [left, top, right, bottom] = [0, 0, innerWidth, innerHeight];
    for (let each = node.parentElement; each; each = each.parentElement) {
        const style = getComputedStyle(each), box = each.getBoundingClientRect();
        if (style.visibility === "hidden" || style.opacity === "0") return null;
        if (style.overflowX !== "visible") [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
        if (style.overflowY !== "visible") [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
    }
    return {left: left - 2, top: top - 2, right: right + 2, bottom: bottom + 2};
}
function piece(node) {
    const [range, clip, whole] = [document.createRange(), frame(node), node.textContent];
    if (!clip || !whole.trim()) return null;
    const inside = length => {
        range.setEnd(node, length);
        return Array.from(range.getClientRects()).every(box =>
            box.left >= clip.left && box.top >= clip.top && box.right <= clip.right && box.bottom <= clip.bottom);
    };
    range.setStart(node, 0);
    let [low, high] = [0, whole.length];
    while (low < high) {
        const middle = Math.ceil((low + high) / 2);
        if (inside(middle)) low = middle; else high = middle - 1;
    }
    range.setEnd(node, low);
    const box = range.getClientRects()[0];
    if (!box || !box.width || !whole.slice(0, low).trim()) return null;
    const shown = low < whole.trimEnd().length ? whole.slice(0, low) + "…" : whole;
    return {text: shown.trim(), x: box.left, y: (box.top + box.bottom) / 2};
}
const [walker, found] = [document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), []];
while (walker.nextNode()) if (!["STYLE", "SCRIPT", "NOSCRIPT"].includes(walker.currentNode.parentNode.nodeName)) {
    const next = piece(walker.currentNode);
    if (next) found.push(next);
}
return found
"""
# The innermost elements with this text or label. The last one is in the menu that was opened last.
ELEMENT = """
const named = Array.from(document.body.querySelectorAll("*")).filter(each => {
    const box = each.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && getComputedStyle(each).visibility === "visible" && [(each.innerText || "")
        .trim(), each.title, each.getAttribute("aria-label")].includes(arguments[0]);
});
return named.filter(each => !named.some(other => other !== each && each.contains(other))).at(arguments[1])
"""


class Browser:
    def __init__(self, profile: Path) -> None:
        self.text, self.clicks = "", 0
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def open(self, address: str) -> None:
        self.driver.get("about:blank")  # a change of only the fragment would not reload the page
        self.driver.get(address)

    def missing(self, address: str, *expected: str) -> list[str]:
        """Returns the texts of `expected` that the page at `address` does not contain within TIMEOUT_SECONDS."""
        self.open(address)
        until = time.monotonic() + TIMEOUT_SECONDS
        left = list(expected)
        while left and time.monotonic() < until:
            time.sleep(0.1)
            with suppress(WebDriverException):  # a frame that is being replaced
                self.text = str(self.driver.execute_script(TEXT))
                left = [text for text in expected if text not in self.text]
        return left

    def draws_image(self, part_of_source: str) -> bool:
        script = "return Array.from(document.images).some(i => i.src.includes(arguments[0]) && i.naturalWidth > 300)"
        return bool(self.until(lambda: self.driver.execute_script(script, part_of_source)))

    def until(self, value: Callable[[], Found]) -> Found | None:
        """Returns the first true value of `value`; None after TIMEOUT_SECONDS."""
        until = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < until:
            with suppress(WebDriverException):  # an element that is being replaced
                if found := value():
                    return found
            time.sleep(0.1)
        return None

    def lines(self) -> list[list[str]]:
        """Visible text in the reading order: the pieces that begin at the same height are one line."""
        lines: list[tuple[float, list[tuple[float, str]]]] = []
        for piece in sorted(self.driver.execute_script(VISIBLE), key=lambda piece: float(piece["y"])):
            if not lines or piece["y"] - lines[-1][0] > 4:
                lines.append((piece["y"], []))
            lines[-1][1].append((piece["x"], piece["text"]))
        return [[text for _, text in sorted(line)] for _, line in lines]

    def seen(self) -> str:
        """Visible text with single blanks."""
        return " ".join(" ".join(" ".join(line) for line in self.lines()).split())

    def unseen(self, *expected: str) -> list[str]:
        """Returns the texts of `expected` that are not visible within TIMEOUT_SECONDS."""
        left = list(expected)

        def all_seen() -> bool:
            self.text = self.seen()
            left[:] = [text for text in expected if text not in self.text]
            return not left

        self.until(all_seen)
        return left

    def click(self, name: str, place: int = -1) -> None:
        """Clicks on the element with this text or label, by default the last one, and counts the click."""
        self.click_on(lambda: self.element(ELEMENT, name, place), name)

    def click_on(self, find: Callable[[], WebElement | None], name: str, *, times: int = 1) -> None:
        def clicked() -> bool:
            if (element := find()) is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'nearest', inline: 'nearest'})", element)
            place = element.rect
            time.sleep(0.2)  # a page that is being drawn moves its elements
            if element.rect != place:
                return False
            actions = ActionChains(self.driver).move_to_element(element)
            (actions.double_click() if times == 2 else actions.click()).perform()
            return True

        assert self.until(clicked), f"no {name!r} on the page: {self.seen()}"
        self.clicks += times
        time.sleep(0.5)  # menus open with an animation

    def element(self, script: str, *arguments: Any) -> WebElement | None:
        found: WebElement | None = self.driver.execute_script(script, *arguments)
        return found


needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs a browser: install chromium and chromium-driver",
)


def checkout(folder: Path, empty_store: Path) -> str:
    """Puts the files that `make` expects of a checkout and an empty store into the folder; returns the store."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-build.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".locked").touch()
    (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    return f"sqlite:///{shutil.copy(empty_store, folder)}"


def made(target: str) -> list[str]:
    """Command of `serving` for a target of the Makefile."""
    return ["make", target, f"PY={sys.executable}", "PORT={port}"]


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[Callable[[], str]]:
    """Runs `command` in `folder`. Yields a function that waits for the server and returns its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MLFLOW"))}
    log = (folder / f"{port}.log").open("w")
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield lambda: _answering(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        log.close()


def _answering(address: str, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urlopen(address, timeout=5):
            return address
        time.sleep(0.1)
    raise TimeoutError(f"no server answers at {address}")
