"""What benchmarks of speed share: models of several sizes, and both sides in turn, several times, in one process."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from valuedrift_mlflow import models
from valuedrift_mlflow.models.loading import Loaded

RESULTS = Path(__file__).parent / "results"
_SIZES = {
    # hidden, inner, layers, heads, heads of keys and values, vocabulary
    "15M": (288, 768, 6, 6, 6, 32000),
    "135M": (576, 1536, 30, 9, 3, 49152),
}
MODELS = ("embedded", *_SIZES)


def load(name: str, mean_tokens: float, temperature: float) -> Loaded:
    """The embedded base model, or a random Llama whose responses have ``mean_tokens`` tokens in the mean.

    At every token a random model is as likely to end as at any other: so lengths are geometric, short ones and long
    ones in one batch, as those of models that really speak. The likelihood is that of a bias on the end token.
    """
    embedded = models.load_model("embedded:base")
    if name == "embedded":
        return embedded
    hidden, inner, layers, heads, shared, vocabulary = _SIZES[name]
    tokenizer = _with_more_words(embedded.tokenizer, vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    head = torch.nn.Linear(hidden, vocabulary, bias=True)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        head.weight[tokenizer.eos_token_id] = 0.0
        model.lm_head = head
        logits = model(torch.randint(5, vocabulary, (1, 64))).logits[0] / temperature
        others = logits.logsumexp(-1).mean().item()
        head.bias[tokenizer.eos_token_id] = temperature * (others - math.log(mean_tokens - 1))
    return Loaded(name, model, tokenizer)


def _with_more_words(tokenizer: PreTrainedTokenizerFast, size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with as many tokens as a model's vocabulary; those that are added stand in no text."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    words = tree["model"]["vocab"]
    words |= {f"word{number}": number for number in range(len(tokenizer), size)}
    special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    told = {name: str(token) for name, token in special.items() if token is not None}
    longer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tree)), padding_side="left", **told)
    longer.chat_template = tokenizer.chat_template
    return longer


def in_turn(sides: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of every side, of the wall and of the processor, round after round."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            taken[name].append(seconds)
            print(f"  round {number + 1}, {name}: {seconds['wall']:.1f} s, {seconds['cpu']:.1f} s of CPU", flush=True)
    return taken


def compared(taken: Mapping[str, list[dict[str, float]]], ours: str) -> dict[str, object]:
    """Medians, spread, and how many times as long as ours each side took: the median of the ratios of each round."""
    found: dict[str, object] = {}
    for name, rounds in taken.items():
        of_side: dict[str, object] = {}
        for clock in ("wall", "cpu"):
            seconds = [one[clock] for one in rounds]
            ratios = [one[clock] / own[clock] for one, own in zip(rounds, taken[ours], strict=True)]
            of_side[clock] = {
                "median_seconds": round(statistics.median(seconds), 2),
                "least_seconds": round(min(seconds), 2),
                "most_seconds": round(max(seconds), 2),
                "times_ours": round(statistics.median(ratios), 2),
                "least_times": round(min(ratios), 2),
                "most_times": round(max(ratios), 2),
            }
        found[name] = of_side
    return found


def machine(threads: int) -> dict[str, object]:
    """What the figures were had on."""
    return {
        "processor": next(
            (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
            platform.machine(),
        ),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _lines(file: str) -> list[str]:
    path = Path(file)
    return path.read_text().splitlines() if path.is_file() else []


def write(name: str, key: str, result: Mapping[str, object]) -> None:
    """Keep a result under a key of ``results/NAME.json``, beside those of other keys."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    tree = json.loads(file.read_text()) if file.is_file() else {}
    tree[key] = result
    file.write_text(json.dumps(tree, indent=1) + "\n")
