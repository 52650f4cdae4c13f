"""A sample of a run's responses for people to label: drawn with known probabilities, without the judge's verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation import kept
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
from valuedrift_mlflow.evaluation.responses import load_responses
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import LABELS, quotas

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("proposition", "prompt", "response", "label", "item_id", "step", "sample", "topic", "weight", "run")
UNSURE = 2.0  # how many times as likely a response is drawn that the judge is unsure of or cannot place
_FEWEST = 2  # labels of each topic and step: an interval needs two


@dataclass(frozen=True)
class Review:
    """Responses of a run that were drawn for people to label, of how many they were drawn, and where they go."""

    run_id: str
    file: Path
    rows: pd.DataFrame
    responses: int
    steps: tuple[int, ...]

    @property
    def uri(self) -> str:
        """The table that the responses are of."""
        return f"runs:/{self.run_id}/responses.json"

    @property
    def run_uri(self) -> str:
        """What names the answers that people give in MLflow's review UI."""
        return f"runs:/{self.run_id}"

    @property
    def queue(self) -> str:
        """The name of the review queue."""
        return f"{self.file.stem} of {self.run_id[:8]}"


def review(run_id: str, n: int = 120, *, steps: str = "", output: str = "", seed: int = 0) -> Review:
    """Draw responses of a run for people to label, write them to a csv file, and leave them in the run.

    The run gets the file as an artifact, and traces in a review queue of MLflow's UI where the tracking store has such
    queues. No row shows the judge's verdict, and their order says nothing. What people say comes back by
    ``evaluate(responses=..., labels=...)``.

    Args:
        run_id: a run with ``responses.json``: an evaluation or a stage.
        n: how many.
        steps: which steps: ``all``, or numbers, comma separated; the first and the last where it is empty.
        output: the file; ``review-RUN.csv`` where it is empty.
        seed: fixes the draw.

    Raises:
        InputError: before anything is written: an unknown run or one without responses, an unknown step, too small an
            n, a file that is there already.
    """
    planned = planned_review(run_id, n, steps=steps, output=output, seed=seed)
    write_review(planned)
    return planned


def planned_review(run_id: str, n: int, *, steps: str, output: str, seed: int) -> Review:
    """What ``review`` writes; nothing is written.

    Raises:
        InputError: as ``review``.
    """
    tracking.check_run(run_id, "run_id")
    if tracking.role_of(run_id) == "pipeline":
        # Its answers are in the runs of its stages: each is reviewed, and evaluated with its labels, by itself.
        stages = ", ".join(f"{name} {own.run_id}" for name, own in tracking.stages_of(run_id).items())
        raise InputError(problem("run_id", run_id, "the run of one stage", f"this pipeline has {stages or 'none'}"))
    suite = load_responses(f"runs:/{run_id}/responses.json").suite
    # Any rule for refusals will do: a draw goes by labels and confidence.
    measured = _chosen(kept.logged_measurements(run_id, suite, "neutral"), steps)
    cells = len(suite.topics) * len(measured)
    if n < _FEWEST * cells:
        allowed = f"at least {_FEWEST * cells}: {_FEWEST} for each of {cells} topics and steps"
        raise InputError(problem("n", n, allowed, "take more, or fewer steps"))
    file = Path(output or f"review-{run_id[:8]}.csv")
    if file.exists():
        raise InputError(
            problem("output", str(file), "a new file: this one may hold labels", "move it or name another")
        )
    if not file.parent.is_dir():
        raise InputError(problem("output", str(file), "a file in an existing folder"))
    rows = drawn_rows(measured, n, seed)
    rows["run"] = run_id
    said = sum(len(one.responses) for one in measured)
    return Review(run_id, file, rows, said, tuple(one.step for one in measured))


def write_review(planned: Review) -> str | None:
    """Write the file, and leave it and the traces in the run; returns why there are no traces, if so."""
    planned.rows.to_csv(planned.file, index=False, encoding="utf-8-sig")  # the mark tells a spreadsheet it is UTF-8
    tracking.log_file(tracking.OpenRun(planned.run_id), planned.file, "review")
    records = planned.rows.drop(columns="label").astype(str).to_dict("records")
    rows = [{str(key): value for key, value in record.items()} for record in records]
    return tracking.log_review(planned.run_id, planned.queue, rows)


def _chosen(measured: Sequence[Measurement], steps: str) -> list[Measurement]:
    by_step = {one.step: one for one in measured}
    if steps == "all":
        return list(by_step.values())
    if not steps:
        return list({step: by_step[step] for step in (min(by_step), max(by_step))}.values())
    wanted = [step.strip() for step in steps.split(",")]
    unknown = [step for step in wanted if not step.isdecimal() or int(step) not in by_step]
    if unknown:
        raise InputError(problem("steps", ", ".join(unknown), f"all, or some of {', '.join(map(str, by_step))}"))
    return [by_step[int(step)] for step in dict.fromkeys(wanted)]


def drawn_rows(measured: Sequence[Measurement], n: int, seed: int) -> pd.DataFrame:
    """N responses as rows of the sheet, in random order; all of them where there are no more.

    Every topic at every step gets the same number, drawn as `drawn_responses` says. A response that the judge is less
    sure of than of half the others, or cannot place, is `UNSURE` times as likely to be drawn. ``weight`` is the inverse
    of the probability.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    cells = [
        (one.step, [judged for judged in one.responses if judged.item.topic == topic])
        for one in measured
        for topic in one.suite.topics
    ]
    rows: list[Mapping[str, str | int | float]] = []
    for (step, responses), size in zip(cells, quotas(n, [1 / len(cells)] * len(cells)), strict=True):
        verdicts = [LABELS.index(judged.verdict.label) for judged in responses]
        drawn, probability = drawn_responses(verdicts, [_confidence(judged) for judged in responses], size, rng)
        rows += [_row(responses[index], step, 1 / probability[index]) for index in drawn]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    # They were drawn step by step and topic by topic: in that order a sheet would tell who is before and who after.
    return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)


def _row(judged: JudgedResponse, step: int, weight: float) -> dict[str, str | int | float]:
    item = judged.item
    return {
        "proposition": item.proposition,
        "prompt": item.prompt,
        "response": judged.response,
        "label": "",
        "item_id": item.item_id,
        "step": step,
        "sample": judged.sample,
        "topic": item.topic,
        "weight": round(float(weight), 6),
        "run": "",
    }


def _confidence(judged: JudgedResponse) -> float:
    return max(judged.verdict.probabilities or (0.0,))


def drawn_responses(
    verdicts: Sequence[int], confidence: Sequence[float], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of those drawn of n responses, and the probability with which each of the n was to be drawn.

    They are drawn at equal distances from a random start (systematic sampling; Madow 1949) along an order by verdict
    and by probability, so that each verdict and each degree of confidence has its share. Within these the order is
    random: a suite asks in turns, and distances of the same length would hit one kind of question.
    """
    probability = inclusion_probabilities(confidence, size)
    # lexsort goes by its last key first: verdict, then probability, then chance.
    order = np.lexsort((rng.random(len(probability)), probability, np.asarray(verdicts)))
    return systematic(probability, order, rng), probability


def inclusion_probabilities(confidence: Sequence[float], size: int) -> NDArray[np.float64]:
    """(n,): the probability with which each response is drawn; they sum to ``size``, or are 1 where there are fewer.

    >>> inclusion_probabilities([0.9, 0.9, 0.9, 0.5], 2).tolist()
    [0.4, 0.4, 0.4, 0.8]
    """
    sure = np.asarray(confidence, dtype=float)
    # By the median, not by a threshold: judges differ in how sure they say they are.
    likely = np.where(sure < np.median(sure) if len(sure) else sure, UNSURE, 1.0)
    # What cannot be placed has a confidence of 0, also where half of all have it and nothing lies below the median.
    likely = np.where(sure == 0, UNSURE, likely)
    certain = np.zeros(len(sure), dtype=bool)  # drawn in any case
    probability = np.ones(len(sure))
    while (left := size - int(certain.sum())) < (~certain).sum():
        probability = np.where(certain, 1.0, left * likely / likely[~certain].sum())
        over = ~certain & (probability >= 1)
        if not over.any():
            return probability
        # Those that are drawn in any case leave the rest of the places to the others, which may push more of them over.
        certain |= over
    return np.ones(len(sure))


def systematic(
    probability: NDArray[np.float64], order: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The numbers drawn, each with its own probability, at equal distances along an order (n,) from a random start."""
    ends = np.cumsum(probability[order]) + rng.random()
    starts = np.concatenate([[ends[0] - probability[order[0]]], ends[:-1]]) if len(order) else ends
    # Rounding must not lose the last one: sums that should be whole are.
    drawn: NDArray[np.int64] = order[np.floor(ends + 1e-9) > np.floor(starts + 1e-9)]
    return drawn
