"""What a measurement was made with besides its settings: versions of libraries, and the machine."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "mlflow", "numpy", "scipy")


def software() -> str:
    """Python and the libraries that results may depend on, each with its version."""
    known = [(name, _version(name)) for name in _LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {own}" for name, own in known if own)])


def hardware() -> str:
    """The devices that models run on: the GPUs by their names, else the processor with its cores."""
    import os

    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    cores = os.cpu_count() or 1
    return f"CPU {_processor()}, {cores} core{'s' if cores > 1 else ''}"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    told = Path("/proc/cpuinfo")  # Linux alone has it; there `platform` knows no more than the architecture
    if told.is_file():
        for line in told.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine()
