"""The real `transformers serve` on loopback: as the model that is evaluated, and as a judge."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from valuedrift_mlflow.models.server import ChatClient, ChatGenerator, Server


class Served:
    """`transformers serve FOLDER` as a process of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.folder = folder
        self.log = log
        program = Path(sys.executable).with_name("transformers")
        where = ["--host", "127.0.0.1", "--port", self.address.rpartition(":")[2]]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [program, "serve", folder, *where, "--device", "cpu", "--dtype", "float32"],
                stdout=output,
                stderr=subprocess.STDOUT,
                # More threads than one are slower on a model of this size.
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )

    def wait(self, seconds: float = 90) -> None:
        """Until it answers, or a failure that shows its log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        pytest.fail(f"transformers serve did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """By its process id."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def uri(self, options: str = "") -> str:
        """As the model or judge that it serves."""
        return f"openai:/{self.folder}?base_url={self.address}/v1{options}"

    def generator(self, in_flight: int) -> ChatGenerator:
        """What answers prompts on it."""
        return ChatGenerator(ChatClient(Server.from_uri(self.uri(f"&in_flight={in_flight}"))))
