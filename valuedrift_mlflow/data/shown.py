"""What people are told of a dataset: how it was read, what is left of it, and one row as the model will see it."""

from __future__ import annotations

from valuedrift_mlflow.data.datasets import ReadCounts, Stream, TrainingData
from valuedrift_mlflow.data.settings import Kind
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.models.speech import Rendering

_SIDES = ("completion", "chosen", "rejected")
_MOST = 300  # characters of each text


def line(data: Stream | TrainingData) -> str:
    """One line: recognised as what, columns not used, rows, turns trained, rows left out and why.

    Of a stream it is complete at the end of a pass.
    """
    layout = getattr(data, "layout", None)  # what was recognised in the source, where it says more than its name
    said = str(layout.line()) if layout is not None else f"recognised as {data.format}"
    counts = data.counts
    mixed = f"; {data.mixed}" if isinstance(data, TrainingData) and data.mixed else ""
    return f"{data.uri}: {said}" + ("" if counts is None else f"; {counted(counts, data.kind, data.turns)}") + mixed


def counted(counts: ReadCounts, kind: Kind, turns: str) -> str:
    """How many rows there are, how many answers they train, and how many rows were left out and why."""
    said = f"{counts.given:,} {_NAMED[kind]} from {counts.read:,} rows"
    if kind == "sft":
        every = "every answer" if turns == "all" else "last answers alone"
        said += f", {counts.answers:,} answers trained ({every})"
    left = {
        "bad": counts.bad,
        "equal sides": counts.equal,
        "nothing to learn": counts.dropped - counts.equal,
        "labelled bad": counts.labelled_bad,
    }
    told = ", ".join(f"{number:,} {why}" for why, number in left.items() if number)
    return f"{said}; left out: {told or 'none'}"


_NAMED: dict[Kind, str] = {"sft": "rows", "pairs": "pairs", "labelled": "labelled answers", "prompts": "prompts"}


def seen(row: Row, rendering: Rendering | None = None) -> list[str]:
    """A row as the model will see it, a line for each of its texts: by its chat template, else by roles.

    Long texts lose their middle; what a terminal would obey is written out.
    """
    prompt = list(row["prompt"])
    sides = {side: list(row[side]) for side in _SIDES if side in row} or {"prompt": []}
    return [f"{name}: {safe(_rendered(prompt, answer, rendering))}" for name, answer in sides.items()]


def _rendered(prompt: list[dict[str, str]], answer: list[dict[str, str]], rendering: Rendering | None) -> str:
    if rendering is not None:
        return rendering.row(prompt, answer) if answer else rendering.prompt(prompt)
    return " ".join(f"[{message['role']}] {message['content']}" for message in [*prompt, *answer])


def safe(text: str, most: int = _MOST) -> str:
    r"""A text in one line without control characters and marks that turn the writing round, at most ``most`` long.

    >>> safe("a\nb\x1b[31m\u202e")
    'a\\nb\\x1b[31m\\u202e'
    """
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-(most // 2) :]}"
    # Data are somebody else's: what they hold must not move a cursor or turn a line round.
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def called(uri: str) -> str:
    """Data's name as a legend has room for it: what tells datasets apart, without size and seed.

    >>> called("embedded:pairs?gap=1&chosen=oppose&rejected=support&size=1000&seed=2")
    'pairs gap=1 chosen=oppose rejected=support'
    >>> called("/data/hh/train.jsonl"), called("Anthropic/hh-rlhf")
    ('train.jsonl', 'hh-rlhf')
    """
    name, _, settings = uri.rsplit("/", 1)[-1].partition("?")
    told = [one for one in settings.split("&") if one and one.partition("=")[0] not in ("size", "seed")]
    return " ".join([name.removeprefix("embedded:"), *told])
