"""The judged responses of a synthesis, line by line on disk: what was sampled and paid for survives a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.reading import json_of
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.stances import Label, Verdict, check_kept
from valuedrift_mlflow.value_gap.synthesis_plan import Ask

_KEY = ("topic", "prompt", "use", "stance", "style", "try")


class Journal:
    """A jsonl file: a first line that says how the responses were made, then one line for each judged response.

    Responses are written in the batches in which they were sampled, and a batch that a crash has cut off is sampled
    again as a whole: in a smaller batch a model's arithmetic would differ in its last bits.

    Responses that have no verdict yet, because the judge or the model's server fell silent, wait in a file beside it.
    """

    def __init__(self, path: Path, made: Mapping[str, object]) -> None:
        """Take up the file at ``path``, or begin it.

        Raises:
            InputError: the file is none of these, or its responses were made in another way than ``made`` says.
        """
        self.path = path
        self.waiting = path.with_name(f"{path.name.removesuffix('.responses.jsonl')}.unjudged.json")
        self._made = dict(made)
        self._unjudged: dict[tuple[str, ...], str] = {}
        self._known: dict[tuple[str, ...], tuple[str, Verdict]] = {}
        if path.is_file() and path.stat().st_size:
            self._read(made)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([dict(made)])
        if self.waiting.is_file():
            self._take_up()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, ask: Ask) -> tuple[str, Verdict] | None:
        """The response and its verdict, None where it was not sampled yet."""
        return self._known.get(ask.key)

    def unjudged(self, ask: Ask) -> str | None:
        """A response that was sampled and has no verdict yet."""
        return self._unjudged.get(ask.key)

    def wait(self, sampled: Iterable[tuple[Ask, str]]) -> None:
        """Keep responses until they are judged, on disk before this returns; those without a word are none."""
        self._unjudged |= {ask.key: text for ask, text in sampled if text}
        if not self._unjudged:
            self.waiting.unlink(missing_ok=True)
            return
        kept = {"made": self._made, "responses": [[*key, text] for key, text in self._unjudged.items()]}
        half_way = self.waiting.with_suffix(".half-way")
        half_way.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        os.replace(half_way, self.waiting)

    def add(self, batch: Sequence[tuple[Ask, str, Verdict]]) -> None:
        """Keep a batch, on disk before this returns.

        A response without a word may be the work of a server that stayed silent: it is kept for this process alone, and
        sampled again by the next one. One without a verdict waits to be judged by the next one.
        """
        lines = []
        for ask, text, exact in batch:
            # Rounded now as in the file: this process must go by the same numbers as one that reads them.
            verdict = _rounded(exact)
            self._known[ask.key] = (text, verdict)
            if text and not verdict.failed:
                line: dict[str, object] = dict(zip(_KEY, ask.key, strict=True))
                line |= {"response": text, "verdict": verdict.label.value, "probabilities": verdict.probabilities}
                lines.append(line)
        if lines:
            # The mark on the last line tells a whole batch from one that was cut off between two lines.
            self._append([*lines[:-1], lines[-1] | {"end": True}])
        for ask, _, verdict in batch:
            if not verdict.failed:
                self._unjudged.pop(ask.key, None)
        self.wait(())

    def _take_up(self) -> None:
        """Read what waits. A file that is damaged, or made otherwise, is no loss: its responses are sampled again."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            kept: Any = json_of(self.waiting.read_bytes())
            if kept["made"] == self._made:
                self._unjudged = {tuple(map(str, key)): str(text) for *key, text in kept["responses"]}

    def _append(self, lines: Sequence[Mapping[str, object]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            file.flush()
            # Past the system's own buffers: what was paid for must survive a machine that goes down, too.
            os.fsync(file.fileno())

    def _read(self, made: Mapping[str, object]) -> None:
        content = self.path.read_bytes()
        try:
            # `whole` is where the last whole batch ends: what follows was cut off, and is taken off the file below.
            whole, batch, first = 0, [], True
            for line in content.splitlines(keepends=True):
                # A line without its end was being written when the process died.
                if not line.endswith(b"\n"):
                    break
                record: Any = json_of(line)
                if first:
                    self._check(record, made)
                    whole, first = len(line), False
                    at = whole
                    continue
                at += len(line)
                batch.append(record)
                if record.get("end"):
                    whole = at
                    self._known |= {tuple(kept[name] for name in _KEY): _judged(kept) for kept in batch}
                    batch = []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            allowed = "a file of judged responses that a synthesis has begun"
            raise InputError(problem(str(self.path), one_line(error, 200), allowed, "name another output")) from None
        if whole < len(content):
            os.truncate(self.path, whole)
        if first:
            # Even the first line was cut off: it is begun anew.
            self._append([dict(made)])

    def _check(self, found: object, made: Mapping[str, object]) -> None:
        differing = [key for key in made if not isinstance(found, dict) or found.get(key) != made[key]]
        if differing:
            have = {key: found.get(key) if isinstance(found, dict) else None for key in differing}
            allowed = ", ".join(f"{key} {made[key]}" for key in differing)
            mend = "its responses were made otherwise: name another output, or delete the file"
            raise InputError(problem(str(self.path), have, allowed, mend))


def _rounded(verdict: Verdict) -> Verdict:
    """The verdict without the last bits of its probabilities, in which two processes may differ."""
    if verdict.probabilities is None:
        return verdict
    support, neutral, oppose = (round(probability, 6) for probability in verdict.probabilities)
    return replace(verdict, probabilities=(support, neutral, oppose))


def _judged(record: Row) -> tuple[str, Verdict]:
    shares, label = record["probabilities"], Label(record["verdict"])
    check_kept(label, shares)
    return str(record["response"]), Verdict(label, tuple(shares) if shares else None)
