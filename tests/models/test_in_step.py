"""Models in several processes: each has its own start, and steps of one that is split need all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
import sys
from pathlib import Path
from types import SimpleNamespace
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from valuedrift_mlflow import models
from valuedrift_mlflow.models.auto import causal_lm
from valuedrift_mlflow.models.generation import Sampling, TransformersGenerator
from valuedrift_mlflow.stages.start import start_folder

def tell(line):
    os.write(1, f"{line}\\n".encode())  # whole, beside what the other process writes

dist.init_process_group("gloo")
rank = dist.get_rank()
loaded = models.load_model(sys.argv[1])
with start_folder(SimpleNamespace(model=loaded.model, folder=Path(sys.argv[2], str(rank)))) as folder:
    own = causal_lm(str(folder)).state_dict()
tell(f"start: {all(own[name].equal(weight) for name, weight in loaded.model.state_dict().items())}")
fully_shard(loaded.model, mesh=init_device_mesh("cpu", (2,)))
generator = TransformersGenerator(loaded.model, loaded.tokenizer)

def said(prompts):
    return generator.generate(prompts, prompts, Sampling(2, 1.0, 8, seed=0), lambda rows: None)

try:
    said([f"Question {rank}?"])
except ValueError as error:
    tell(f"refused: {error}")
answers = [None, None]
dist.all_gather_object(answers, said(["Should it be?", "Why?"]))
tell(f"same: {answers[0] == answers[1] and len(answers[0]) == 2}")
dist.destroy_process_group()
"""


def test_processes_have_their_own_start_and_step_together(random_folder: Path, tmp_path: Path) -> None:
    """Transformers saves in the first alone; who asks for other responses than the others would wait without end."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, str(random_folder), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("start: True") == 2
    refusal = "refused: the weights are split over processes that ask for different responses; all must ask for all"
    assert done.stdout.count(refusal) == 2 and done.stdout.count("same: True") == 2
