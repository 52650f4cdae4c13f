"""Makes the README's pictures from the newest main job and ablation in this folder's MLflow store.

mlflow run . --env-manager local
mlflow run . --env-manager local -e ablate -P design=algorithms
pip install playwright && python docs/make_images.py --browser "$(command -v chromium)"
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import mlflow
from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


def newest(role: str, also: str = "") -> mlflow.entities.Run:
    """The last finished run of a role in the store; ``also`` is a further condition."""
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`valuedrift.role` = '{role}' and attributes.status = 'FINISHED'{also}",
        output_format="list",
        max_results=1,
    )
    if not runs:
        raise SystemExit(f"no finished {role} in this folder's store: see above for the commands that make one")
    return runs[0]


def fetch(run: mlflow.entities.Run, figure: str, name: str) -> None:
    """Copy a run's figure, made small."""
    shutil.copy(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/figures/{figure}"), HERE / name)
    shrink(HERE / name, 820)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(address: str, seconds: float = 60) -> None:
    """Return when the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urlopen(address):
                return
        except URLError:
            time.sleep(0.5)
    raise SystemExit(f"{address} did not answer within {seconds:.0f} s")


def photograph(page: Page, address: str, experiment: str) -> None:
    """The runs of the experiment, the stages of the newest job opened."""
    page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART")
    page.get_by_text("pipeline · embedded").first.wait_for(timeout=60_000)
    page.locator("button[aria-label='Close']").first.click()  # the assistant's panel
    page.locator(".ag-cell button[data-component-id*=runnamecellrenderer]").first.click()  # open the stages below it
    page.get_by_placeholder("Search metric charts").fill("^stance/(religion|gun_control)")
    page.wait_for_timeout(6_000)
    page.screenshot(path=HERE / "runs.png")


def shrink(path: Path, width: int) -> None:
    """Fewer pixels and colours: a README's picture need not be large."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    small.quantize(128).save(path, optimize=True)


def main() -> None:
    """Make ``docs/runs.png``, ``docs/overall.png`` and ``docs/ablation.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--browser", default=shutil.which("chromium") or "", help="a Chromium to take the screenshot with"
    )
    arguments = parser.parse_args()
    run = newest("pipeline")
    fetch(run, "overall.png", "overall.png")
    fetch(newest("ablation", " and params.design = 'algorithms'"), "drift_by_gap.png", "ablation.png")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=arguments.browser or None, args=FLAGS)
            photograph(browser.new_page(viewport={"width": 1500, "height": 840}), address, run.info.experiment_id)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    shrink(HERE / "runs.png", 1100)


if __name__ == "__main__":
    main()
