"""MLflow's UI in a real browser: a server on a store, and pages that are read and photographed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
# As with a mouse: without one the charts show their buttons all the time, over their curves.
_MOUSE = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
FLAGS.append(f"--blink-settings={_MOUSE}")
# MLflow's assistant opens itself at a browser's first visit, over a quarter of the page.
_NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
PATIENCE = 60  # seconds: a shared machine may be slow


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an ``mlflow server`` on the store in a folder."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", "./mlruns"]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(command, cwd=folder, env=quiet, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/version", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(address, timeout=30):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise RuntimeError(f"{address} does not answer: see server.log")


def chromium() -> str:
    """Where a Chromium of this machine is; empty where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


@contextmanager
def browser(width: int = 1440, height: int = 900) -> Iterator[Page]:
    """A page of a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=1000 * PATIENCE)
        page = opened.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(_NO_ASSISTANT)
        yield page
        opened.close()


def read(page: Page, address: str, *words: str) -> str:
    """Open a page, wait until a person reads these words there; gives all that it says."""
    page.goto("about:blank")  # or what the page before says would be read: MLflow's pages are one document
    page.goto(address)
    return said(page, *words)


def said(page: Page, *words: str) -> str:
    """Wait for words that a person reads on a page; gives all that it says."""
    for word in words:
        visible(page, word).wait_for()
    return page.inner_text("body")


def visible(page: Page, word: str) -> Locator:
    """The first place where a word can be read: MLflow keeps others for tooltips and closed parts of a page."""
    return page.get_by_text(word).filter(visible=True).first


def unfold(page: Page) -> None:
    """Show all of a run's description, of which MLflow shows the first lines."""
    page.get_by_role("button", name="Expand description").click()


def drawn(page: Page, lines: int) -> None:
    """Wait until charts have this many lines together."""
    page.locator(".scatterlayer .trace").nth(lines - 1).wait_for()


def photograph(page: Page, folder: Path, name: str) -> None:
    """A picture of what is seen."""
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / f"ui-{name}.png")
