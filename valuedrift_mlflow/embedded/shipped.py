"""The trained base model that comes with the package: unpacked where what makes it is still what made it.

Its weights are kept in half precision (3.4 MB); the model *is* these weights, the same on every machine, where training
on the spot comes to slightly other ones on each. ``python -m valuedrift_mlflow.stages.embedded_base`` makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "base"
WEIGHTS, MADE = "model.safetensors", "made.json"


def is_of(made: str) -> bool:
    """Whether the shipped model was made of this: texts, architecture, template and settings, by their hash."""
    record: dict[str, str] = json.loads((FOLDER / MADE).read_text()) if (FOLDER / MADE).is_file() else {}
    # The weights are hashed as well: a checkout may hold a pointer, or half a file, in their place.
    return record.get("made") == made and record.get(WEIGHTS) == _sha256(FOLDER / WEIGHTS)


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the shipped model."""
    from transformers import PreTrainedTokenizerFast

    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    return loaded


def unpack(folder: Path) -> None:
    """Write the shipped model to ``folder`` as `save_pretrained` would, its weights in single precision."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    for file in FOLDER.iterdir():
        if file.name not in (WEIGHTS, MADE):
            shutil.copyfile(file, folder / file.name)
    weights = {name: value.astype(np.float32) for name, value in load_file(FOLDER / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def pack(folder: Path, made: str) -> None:
    """Ship the trained model in ``folder``, made of ``made``."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, FOLDER / name)
    shutil.copyfile(folder / "chat_template.jinja", FOLDER / "chat_template.jinja")
    weights = {name: value.astype(np.float16) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, FOLDER / WEIGHTS, metadata={"format": "pt"})
    os.chmod(FOLDER / WEIGHTS, 0o644)
    record = {"made": made, WEIGHTS: _sha256(FOLDER / WEIGHTS)}
    (FOLDER / MADE).write_text(json.dumps(record, indent=2) + "\n")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
