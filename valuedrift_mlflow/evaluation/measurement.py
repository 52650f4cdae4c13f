"""A suite's prompts to responses to verdicts to stances. Callback, entry points and evaluator all measure here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.outputs import NoText
from valuedrift_mlflow.inputs.thoughts import UNFINISHED, spoken
from valuedrift_mlflow.judges.asking import Reply, ask, reader, reads_responses
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.many import verdicts
from valuedrift_mlflow.models.calling import is_sharded
from valuedrift_mlflow.models.generation import Generator, Progress, Sampling, TransformersGenerator
from valuedrift_mlflow.models.stored import StoredGenerator, stored
from valuedrift_mlflow.stances import STANCES, UNSCORED, Answer, Label, RefusalRule, Spent, Verdict
from valuedrift_mlflow.statistics.acquiescence import Acquiescence, acquiescence
from valuedrift_mlflow.statistics.agreement import PanelAgreement, panel_agreement
from valuedrift_mlflow.suite import Item, Suite

EMPTY = replace(UNSCORED, reason="empty response")
UNFINISHED_THOUGHT = replace(UNSCORED, reason=UNFINISHED)


def no_progress(_: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class JudgedResponse:
    """One response to one item and the judge's verdict on it."""

    item: Item
    sample: int
    response: str
    verdict: Verdict


@dataclass(frozen=True)
class Measurement:
    """The stances of one model on one suite at one step."""

    step: int
    suite: Suite
    judge: str
    refusal: RefusalRule
    responses: tuple[JudgedResponse, ...]
    seconds: float
    reused: int = 0  # responses that had been sampled before

    def firsts(self) -> list[tuple[Item, str]]:
        """Every item with the first response to it."""
        return [(judged.item, judged.response) for judged in self.responses if judged.sample == 0]

    # A frozen class may have them: they write into its __dict__, past the assignment that it refuses.
    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Mean stance probabilities of each prompt's scored responses, shape (N, 3); NaN where none was scored."""
        # By id, not by place: responses may come in another order, and of a part of the suite.
        index = {item.item_id: row for row, item in enumerate(self.suite.items)}
        sums = np.zeros((len(index), len(STANCES)))
        counts = np.zeros(len(index))
        for judged in self.responses:
            vector = judged.verdict.vector(self.refusal)
            if vector is not None:
                sums[index[judged.item.item_id]] += vector
                counts[index[judged.item.item_id]] += 1
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
            means: NDArray[np.float64] = sums / counts[:, None]
        return means

    @cached_property
    def answers(self) -> NDArray[np.float64]:
        """Stance probabilities of each response, shape (N, S, 3) for at most S of a prompt; NaN where there is none."""
        index = {item.item_id: row for row, item in enumerate(self.suite.items)}
        asked = Counter(judged.item.item_id for judged in self.responses)
        answers = np.full((len(index), max(asked.values(), default=1), len(STANCES)), np.nan)
        given = Counter[str]()
        for judged in self.responses:
            vector = judged.verdict.vector(self.refusal)
            if vector is not None:
                answers[index[judged.item.item_id], given[judged.item.item_id]] = vector
            given[judged.item.item_id] += 1
        return answers

    @cached_property
    def asked(self) -> NDArray[np.bool_]:
        """Whether `answers` has a response at each place, shape (N, S), scored or not."""
        index = {item.item_id: row for row, item in enumerate(self.suite.items)}
        number = np.zeros(len(index), dtype=np.int64)
        for judged in self.responses:
            number[index[judged.item.item_id]] += 1
        return np.arange(self.answers.shape[1]) < number[:, None]

    def rate(self, label: Label) -> float:
        """Share of all responses that got this label, in [0, 1]."""
        return Counter(judged.verdict.label for judged in self.responses)[label] / len(self.responses)

    @cached_property
    def acquiescence(self) -> Acquiescence:
        """How much of the stances follows the wording of the prompts."""
        items = self.suite.items
        return acquiescence(
            self.values,
            topics=[item.topic for item in items],
            propositions=[item.proposition_id for item in items],
            phrasings=[item.phrasing for item in items],
            polarity=[item.polarity for item in items],
        )

    @cached_property
    def panel(self) -> PanelAgreement | None:
        """How far the members of a panel agree; None where a single judge has judged."""
        opinions = [judged.verdict.opinions for judged in self.responses if judged.verdict.opinions]
        return panel_agreement(opinions) if opinions else None

    def costs(self) -> dict[str, float]:
        """What the measurement took: ``cost/...`` metrics. What a cached verdict once cost is not counted again."""
        costs = {
            "cost/evaluation_seconds": self.seconds,
            "cost/responses_per_second": len(self.responses) / max(self.seconds, 1e-9),
        }
        if self.reused:
            costs["cost/response_cache_hits"] = float(self.reused)
        return costs | judge_costs([judged.verdict for judged in self.responses])

    def qualities(self) -> dict[str, float]:
        """``quality/...`` metrics, and ``intensity/TOPIC`` where the judge tells how strongly a stance is held."""
        # Of a panel member by member: its joint verdict has failed as soon as one of them has.
        verdicts = [verdict for judged in self.responses for verdict in _single_verdicts(judged.verdict)]
        qualities = {
            "quality/unscored_rate": self.rate(Label.UNSCORED),
            "quality/refusal_rate": self.rate(Label.REFUSAL),
            "quality/acquiescence": self.acquiescence.overall,
        }
        # Of judges that are asked over a line, and so can fail.
        if any(verdict.failed or verdict.cached or verdict.spent.calls for verdict in verdicts):
            qualities["quality/judge_failure_rate"] = float(np.mean([verdict.failed for verdict in verdicts]))
        thoughts = [spoken(judged.response) for judged in self.responses]
        # Of models that think alone: for others a rate of 0 would say nothing.
        if any(text.thought for text in thoughts):
            qualities["quality/unfinished_thought_rate"] = float(np.mean([not text.finished for text in thoughts]))
        if self.panel is not None:
            qualities["quality/judge_agreement"] = self.panel.alpha
        return finite(qualities | self.intensities())

    def intensities(self) -> dict[str, float]:
        """``intensity/TOPIC``: mean intensity of the topic's scored responses, in [0, 1]."""
        by_topic: dict[str, list[float]] = {}
        for judged in self.responses:
            if judged.verdict.intensity is not None:
                by_topic.setdefault(f"intensity/{judged.item.topic}", []).append(judged.verdict.intensity)
        return {key: float(np.mean(values)) for key, values in by_topic.items()}


@dataclass(frozen=True)
class Said:
    """What a model has said to every item of a suite at one step, before a judge has read it.

    ``replies`` are those to each item, in order; ``seconds`` is what asking took.
    """

    suite: Suite
    judge: Judge
    step: int
    refusal: RefusalRule
    replies: Sequence[Sequence[Reply]]
    seconds: float

    def firsts(self) -> list[tuple[Item, str]]:
        """Every item with the first response to it."""
        return [(item, replies[0].text) for item, replies in zip(self.suite.items, self.replies, strict=True)]

    def judged(self) -> Measurement:
        """The measurement that it comes to, by the judge."""
        start = time.perf_counter()
        flat = [
            (item, sample, reply)
            for item, replies in zip(self.suite.items, self.replies, strict=True)
            for sample, reply in enumerate(replies)
        ]
        responses = judge_replies(self.judge, flat)
        seconds = self.seconds + time.perf_counter() - start
        return Measurement(self.step, self.suite, identity(self.judge), self.refusal, responses, seconds)


def judge_costs(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """``cost/judge_...`` metrics of verdicts, a panel's members counted one by one; none where nothing was spent."""
    single = [verdict for joint in verdicts for verdict in _single_verdicts(joint)]
    spent = sum((verdict.spent for verdict in single if not verdict.cached), Spent())
    if not spent.calls and not any(verdict.cached for verdict in single):
        return {}
    costs = {
        "cost/judge_tokens": float(spent.tokens),
        "cost/judge_calls": float(spent.calls),
        "cost/judge_cache_hits": float(sum(verdict.cached for verdict in single)),
    }
    return costs | ({"cost/judge_dollars": spent.dollars} if spent.dollars else {})


def _single_verdicts(verdict: Verdict) -> list[Verdict]:
    return [opinion for _, opinion in verdict.opinions] or [verdict]


def measure(
    generator: Generator,
    suite: Suite,
    judge: Judge,
    sampling: Sampling,
    *,
    step: int = 0,
    refusal: RefusalRule = "neutral",
    progress: Progress = no_progress,
    reuse: bool = False,
) -> Measurement:
    """Ask every prompt of ``suite`` ``sampling.samples`` times, judge the responses, keep everything.

    A judge with a way of asking of its own has the model asked in that way; see `judges.asking`. With ``reuse`` what an
    unchanged model has said before, asked the same with the same seed, is read and not sampled; see `models.stored`.

    Raises:
        InputError: the model cannot be asked in the judge's way.
    """
    start = time.perf_counter()
    # Whoever asks in a way of its own needs the model itself.
    source = stored(generator) if reuse and reads_responses(judge) else generator
    said = ask(judge, source, suite.items, sampling, progress)
    reused = source.reused if isinstance(source, StoredGenerator) else 0
    return replace(Said(suite, judge, step, refusal, said, time.perf_counter() - start).judged(), reused=reused)


def ask_together(
    generator: Generator,
    suite: Suite,
    judge: Judge,
    sampling: Sampling,
    *,
    step: int = 0,
    refusal: RefusalRule = "neutral",
    progress: Progress = no_progress,
) -> Said | None:
    """What ``measure`` asks, by every process of a training at once; in a training of one process it is the same.

    Each process asks its part of the prompts. Sampling is seeded for each prompt and sample, so the parts together
    are what one process gets. Where the weights are split over the processes, every forward pass needs all of them:
    then all ask all prompts, in step. The first process is given what was said, to judge it; the others None.

    Raises:
        InputError: as ``measure``.
    """
    import torch.distributed as dist

    start = time.perf_counter()
    if not (dist.is_available() and dist.is_initialized()):
        replies = ask(judge, generator, suite.items, sampling, progress)
        return Said(suite, judge, step, refusal, replies, time.perf_counter() - start)
    rank, processes = dist.get_rank(), dist.get_world_size()
    if isinstance(generator, TransformersGenerator) and is_sharded(generator.model):
        replies = ask(judge, generator, suite.items, sampling, progress)
    else:
        part = ask(judge, generator, suite.items[rank::processes], sampling, progress)
        parts: list[list[list[Reply]]] = [[] for _ in range(processes)]
        dist.all_gather_object(parts, part)
        replies = [[] for _ in suite.items]
        for other, gathered in enumerate(parts):
            # Put back with the stride with which the prompts were dealt out.
            replies[other::processes] = gathered
    return None if rank else Said(suite, judge, step, refusal, replies, time.perf_counter() - start)


def judge_existing(
    responses: Sequence[tuple[Item, int, str]],
    suite: Suite,
    judge: Judge,
    *,
    step: int = 0,
    refusal: RefusalRule = "neutral",
) -> Measurement:
    """The measurement that responses of (item, sample, text) which exist already come to.

    Raises:
        InputError: the judge reads no responses.
    """
    start = time.perf_counter()
    judged = judge_replies(reader(judge), [(item, sample, Reply(text)) for item, sample, text in responses])
    return Measurement(step, suite, identity(judge), refusal, judged, time.perf_counter() - start)


def judge_replies(judge: Judge, replies: Sequence[tuple[Item, int, Reply]]) -> tuple[JudgedResponse, ...]:
    """Verdicts on (item, sample, reply) triples, in order.

    The judge reads what has no verdict yet, without what a reasoning model thought before it; an empty response, and
    one that ends in its thought, is unscored without asking it.
    """
    said = {index: spoken(reply.text) for index, (_, _, reply) in enumerate(replies) if reply.verdict is None}
    # Whoever is paid by the answer is not asked about nothing.
    unread = [index for index, text in said.items() if text.finished and text.answer.strip()]
    answers = [
        Answer(item.proposition, item.prompt, said[index].answer, item.polarity)
        for index, item in ((index, replies[index][0]) for index in unread)
    ]
    read = dict(zip(unread, verdicts(judge, answers) if answers else [], strict=True))
    read |= {index: UNFINISHED_THOUGHT for index, text in said.items() if not text.finished}
    return tuple(
        JudgedResponse(item, sample, reply.text, reply.verdict or read.get(index) or _empty(reply.text))
        for index, (item, sample, reply) in enumerate(replies)
    )


def _empty(text: str) -> Verdict:
    """Unscored, with what was given instead of a text where that is known."""
    return replace(EMPTY, reason=text.reason) if isinstance(text, NoText) else EMPTY


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are numbers: what does not apply is not logged."""
    return {key: value for key, value in metrics.items() if np.isfinite(value)}
