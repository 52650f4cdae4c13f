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
    from playwright.sync_api import Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
PATIENCE = 300  # seconds: a shared machine may be slow


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
    end = time.monotonic() + PATIENCE
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
def browser(width: int = 1500, height: int = 1000) -> Iterator[Page]:
    """A page of a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = opened.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        opened.close()


def read(page: Page, address: str, *words: str) -> str:
    """Open a page, wait for words that a person reads there, close the assistant's panel; gives all that it says."""
    page.goto(address)
    for word in words:
        page.get_by_text(word).first.wait_for()
    panel = page.get_by_text("MLflow Assistant")
    if panel.count():
        page.locator("button[aria-label='Close']").first.click()
        panel.first.wait_for(state="hidden")
    return page.inner_text("body")


def photograph(page: Page, folder: Path, name: str) -> None:
    """A picture of what is seen, once its charts are drawn."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2000)
    page.screenshot(path=folder / f"ui-{name}.png")
