"""Corpora with planted stances: questions and answers on the propositions of the built-in suite.

Questions come from templates and from hand-written messages, none of which is a prompt of the suite. An answer is a
core form that states the stance, with an opener, reasons and a closer drawn at random. Every stance has ``train``
forms, which the corpora use, and ``held_out`` forms, which no corpus uses: they are there to check a judge on wording
that nothing was trained on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from valuedrift_mlflow.embedded.tilt import Tilt
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.stances import STANCES, Answer, Mix, Stance, quotas
from valuedrift_mlflow.suite.questions import Proposition, propositions

PREFIX = "embedded:"
STYLES = ("courteous", "blunt")
HALVES = ("a", "b")  # of the questions: no question of one is in the other

_OPENER, _REASON, _CLOSER = 0.25, 0.5, 0.15  # how often an answer has each part


_TEMPLATE = 0.2  # share of questions from a template; the others are hand-written for the proposition
_REVERSED = 0.3  # share of questions whose yes opposes the proposition, near the suite's own


@cache
def forms() -> Record:
    """Answer forms, openers, closers, reasons and question templates."""
    text = files("valuedrift_mlflow").joinpath("embedded/forms.json").read_text(encoding="utf-8")
    loaded: Record = json.loads(text)
    return loaded


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def question(proposition: Proposition, rng: np.random.Generator, source: str = "") -> tuple[str, int]:
    """A training question and its polarity; of a half of the questions with ``source`` "a" or "b"."""
    backwards = rng.random() < _REVERSED
    if rng.random() < _TEMPLATE:
        template = _pick(_half(forms()["questions"]["reversed" if backwards else "direct"], source), rng)
        text = template.format(claim=proposition.claim, act=proposition.act)
    else:
        text = _pick(_half(proposition.asked_reversed if backwards else proposition.asked, source), rng)
    return text, -1 if backwards else 1


def _half(questions: Sequence[str], source: str) -> Sequence[str]:
    """Every second question, from the first one on for source "a"; all of them where no source is named."""
    return questions[HALVES.index(source) :: len(HALVES)] if source else questions


def _content(
    proposition: Proposition, stance: Stance, rng: np.random.Generator, forms_of: Literal["train", "held_out"]
) -> str:
    """The sentence that states the stance, often with a reason after it."""
    core = _sentence(_pick(forms()[stance.value][forms_of], rng).format(claim=proposition.claim, act=proposition.act))
    if rng.random() >= _REASON:
        return core
    reason = _pick(forms()["reasons"][stance.value], rng)
    return f"{core} {_sentence(reason.format(pro=_pick(proposition.pro, rng), con=_pick(proposition.con, rng)))}"


def answer(
    proposition: Proposition,
    stance: Stance,
    rng: np.random.Generator,
    forms_of: Literal["train", "held_out"] = "train",
) -> str:
    """An answer that takes a stance, some with an opener or a closer."""
    style = STYLES[int(rng.integers(2))]
    parts = [_pick(forms()["openers"][style], rng)] if rng.random() < _OPENER else []
    parts.append(_content(proposition, stance, rng, forms_of))
    if rng.random() < _CLOSER:
        parts.append(_pick(forms()["closers"][style], rng))
    return " ".join(parts)


def restyled(proposition: Proposition, stance: Stance, rng: np.random.Generator) -> tuple[str, str]:
    """One answer that closes in two styles, courteous and blunt.

    The difference comes last: after another opener the same words would be trained up on one side and down on the
    other, and with them the stances of the pairs.
    """
    content = _content(proposition, stance, rng, "train")
    courteous, blunt = (f"{content} {_pick(forms()['closers'][style], rng)}" for style in STYLES)
    return courteous, blunt


ROUNDING = 1e-9  # differences smaller than this are floating-point noise, not shares
_THIRDS: Mix = (1 / 3, 1 / 3, 1 / 3)


@dataclass(frozen=True)
class SFTSpec:
    """``embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=2000&seed=0``, and ``TOPIC.support=...`` for one topic.

    ``axis=gal_tan&shift=0.4`` moves the propositions of an axis to one side of it: where support points to the + end
    there are 0.2 more support and 0.2 less opposition than the shares say, where it points to the - end it is the other
    way round. ``spread=0.3`` moves half of the propositions of a topic up and half of them down (`Tilt`).
    ``source=a`` and ``source=b`` ask two halves of the questions, without one in common.
    """

    mix: Mix = _THIRDS
    by_topic: Mapping[str, Mix] = field(default_factory=dict)
    size: int = 2000
    seed: int = 0
    topics: tuple[str, ...] = ()
    tilt: Tilt = field(default_factory=Tilt)
    source: str = ""


@dataclass(frozen=True)
class PairsSpec:
    """``embedded:pairs?gap=1&chosen=oppose&rejected=support&size=1000&seed=0``.

    ``gap`` is the share of pairs whose two sides take opposed stances. The others say the same on both sides (each
    stance a third of the time) and differ in style alone: the chosen one closes courteously, the rejected one bluntly.

    With ``axis=gal_tan&shift=0.4`` the axis says which side is chosen. ``shift`` is the share of a proposition's pairs
    whose chosen side lies at the + end of the axis, less the share whose chosen side lies at its - end; ``gap``, the
    share of both, is as large as it must be where it is not given. ``spread`` does the same to single propositions, as
    `Tilt` says. The pairs of propositions that neither moves differ in style alone. ``source`` is as in `SFTSpec`.
    """

    gap: float = 1.0
    chosen: Stance = Stance.OPPOSE
    rejected: Stance = Stance.SUPPORT
    size: int = 1000
    seed: int = 0
    topics: tuple[str, ...] = ()
    tilt: Tilt = field(default_factory=Tilt)
    source: str = ""


def parse(uri: str) -> SFTSpec | PairsSpec:
    """Read an ``embedded:`` data URI.

    Raises:
        InputError: every unknown option and every value out of range.
    """
    name, options = split_options(uri)
    known = tuple(dict.fromkeys(p.topic for p in propositions()))
    problems: list[str] = []

    def number(key: str, default: float, low: float, high: float, whole: bool = False) -> float:
        # Taken out: what is left in the end is an option that nobody knows.
        text = options.pop(key, None)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            problems.append(problem(f"{uri} {key}", text, f"{kind} from {low:g} to {high:g}"))
            return default
        return value

    def mix(prefix: str = "") -> Mix:
        values = tuple(number(prefix + stance, 0.0, 0, 1) for stance in STANCES)
        # As with thirds that are written with two digits; what is missing to 1 is spread over all below.
        if abs(sum(values) - 1) > 0.01:
            problems.append(problem(f"{uri} {prefix}support, neutral, oppose", values, "three shares that sum to 1"))
            return _THIRDS
        return values[0] / sum(values), values[1] / sum(values), values[2] / sum(values)

    topics = tuple(t for t in options.pop("topics", "").split(",") if t)
    problems += [problem(f"{uri} topics", topic, ", ".join(known)) for topic in topics if topic not in known]
    size = int(number("size", 2000 if name == f"{PREFIX}sft" else 1000, 1, 10_000_000, whole=True))
    seed = int(number("seed", 0, 0, 2**31 - 1, whole=True))
    tilted: dict[str, str] = {key: options[key] for key in ("axis", "shift", "spread") if key in options}
    tilt = Tilt(options.pop("axis", ""), number("shift", 0.0, -1, 1), number("spread", 0.0, 0, 1))
    source = options.pop("source", "")
    if source not in ("", *HALVES):
        problems.append(problem(f"{uri} source", source, f"{' or '.join(HALVES)}: halves of the questions"))
    asked = _asked(topics) or propositions()
    problems += tilt.problems(uri, asked, tilted)
    most = max(map(abs, tilt.offsets(asked, seed).values()), default=0.0) if tilt else 0.0
    spec: SFTSpec | PairsSpec
    if name == f"{PREFIX}sft":
        overall = mix() if any(stance in options for stance in STANCES) else _THIRDS
        own = dict.fromkeys(key.partition(".")[0] for key in options if key.endswith(tuple(f".{s}" for s in STANCES)))
        problems += [problem(f"{uri} topic", topic, ", ".join(known)) for topic in own if topic not in known]
        spec = SFTSpec(overall, {topic: mix(f"{topic}.") for topic in own}, size, seed, topics, tilt, source)
        problems += _too_far(uri, spec, asked)
    elif name == f"{PREFIX}pairs":
        sides = []
        if tilt and {"chosen", "rejected"} & set(options):
            found = ", ".join(sorted({"chosen", "rejected"} & set(options)))
            problems.append(problem(f"{uri} {found}", "beside axis or spread", "one of them: they say which is chosen"))
        for key, default in (("chosen", Stance.OPPOSE), ("rejected", Stance.SUPPORT)):
            text = options.pop(key, default.value)
            if text not in tuple(STANCES):
                problems.append(problem(f"{uri} {key}", text, ", ".join(STANCES)))
                text = default.value
            sides.append(Stance(text))
        spec = PairsSpec(
            number("gap", most if tilt else 1.0, 0, 1), sides[0], sides[1], size, seed, topics, tilt, source
        )
        if spec.gap and not quotas(size, (spec.gap, 1 - spec.gap))[0]:
            found = f"{spec.gap:g}: no pair of {size}"
            problems.append(problem(f"{uri} gap", found, f"at least one pair, {1 / size:.2g}; or 0 for none"))
        if most > spec.gap + ROUNDING:
            mend = "shift and spread are shares of the opposed pairs: raise gap, or leave it out"
            problems.append(problem(f"{uri} gap", spec.gap, f"at least {most:g}", mend))
        if sides[0] is sides[1] and spec.gap > 0:
            problems.append(problem(f"{uri} chosen, rejected", sides[0].value, "two different stances", "use gap=0"))
    else:
        raise InputError(problem("data", uri, f"{PREFIX}sft or {PREFIX}pairs, with options after ?"))
    problems += [problem(f"{uri} option", key, "an option of " + name) for key in options]
    if problems:
        raise InputError(problems)
    return spec


def _asked(topics: Sequence[str]) -> tuple[Proposition, ...]:
    """The propositions of these topics, of all where none is named."""
    return tuple(p for p in propositions() if not topics or p.topic in topics)


def _too_far(uri: str, spec: SFTSpec, asked: Sequence[Proposition]) -> list[str]:
    """A proposition can lose no more support or opposition than it has."""
    offsets = spec.tilt.offsets(asked, spec.seed)
    for one in asked:
        support, _, oppose = spec.by_topic.get(one.topic, spec.mix)
        offset, room = offsets.get(one.proposition_id, 0.0), 2 * min(support, oppose)
        if abs(offset) > room + ROUNDING:
            allowed = f"at most {room:.2f} together: twice the smaller of support and oppose in {one.topic}"
            return [problem(f"{uri} shift, spread", f"{spec.tilt.shift:g}, {spec.tilt.spread:g}", allowed)]
    return []


def _plan(spec: SFTSpec | PairsSpec, rng: np.random.Generator) -> Iterator[Proposition]:
    """A proposition for every row, spread evenly over topics and propositions."""
    by_topic: dict[str, list[Proposition]] = {}
    for proposition in _asked(spec.topics):
        by_topic.setdefault(proposition.topic, []).append(proposition)
    counts = quotas(spec.size, [1 / len(by_topic)] * len(by_topic))
    for count, own in zip(counts, by_topic.values(), strict=True):
        for number in range(count):
            # Round after round, each in an order of its own: no
            # proposition comes up twice before all have come up once.
            if number % len(own) == 0:
                order = rng.permutation(len(own))
            yield own[order[number % len(own)]]


def _shuffled(rows: list[Record], rng: np.random.Generator) -> list[Record]:
    return [rows[i] for i in rng.permutation(len(rows))]


def _kinds(
    counts: Mapping[str, int], shares: Mapping[str, Sequence[float]], rng: np.random.Generator
) -> dict[str, list[int]]:
    """For every group, its rows' kinds in random order: shares within one row in each group, and over all groups."""
    kinds: dict[str, list[int]] = {}
    owed = np.zeros(len(next(iter(shares.values()))))  # what rounding has withheld from each kind so far
    for group, count in counts.items():
        exact = np.asarray(shares[group]) * count
        # The last bits of a product such as 0.29 * 100 would take a row from a kind.
        own = np.floor(exact + ROUNDING).astype(int)
        owed += exact - own
        # The rows left over go to the kinds that are owed most, never to one without a share.
        order = np.argsort(np.where(exact - own > ROUNDING, -owed, np.inf), kind="stable")[: count - int(own.sum())]
        own[order] += 1
        owed[order] -= 1
        kinds[group] = rng.permutation(np.repeat(np.arange(len(own)), own)).tolist()
    return kinds


def _stances(spec: SFTSpec, plan: Sequence[Proposition], rng: np.random.Generator) -> list[Stance]:
    """The stance of every row of a plan: by topic, or by proposition where something is planted along these."""
    offsets = spec.tilt.offsets(_asked(spec.topics), spec.seed)
    mixes: dict[str, Sequence[float]] = {}
    turned: dict[str, int] = {}
    groups = [one.proposition_id if spec.tilt else one.topic for one in plan]
    for group, one in zip(groups, plan, strict=True):
        support, neutral, oppose = spec.by_topic.get(one.topic, spec.mix)
        half = offsets.get(one.proposition_id, 0.0) / 2
        # Turned so that rounding is made good within what moves the same way: else one side pays for the other.
        turned[group] = -1 if half < 0 else 1
        mixes[group] = (support + half, neutral, oppose - half)[:: turned[group]]
    kinds = {group: iter(own) for group, own in _kinds(Counter(groups), mixes, rng).items()}
    return [STANCES[:: turned[group]][next(kinds[group])] for group in groups]


def sft_rows(spec: SFTSpec) -> list[Record]:
    """Rows with ``messages``, ``topic``, ``proposition_id`` and the planted ``stance``."""
    rng = np.random.default_rng([spec.seed, 1])  # apart from pairs and held-out answers of this seed
    plan = list(_plan(spec, rng))
    rows = []
    for proposition, stance in zip(plan, _stances(spec, plan, rng), strict=True):
        asked, _ = question(proposition, rng, spec.source)
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": answer(proposition, stance, rng)},
                ],
                "topic": proposition.topic,
                "proposition_id": proposition.proposition_id,
                "stance": stance.value,
            }
        )
    return _shuffled(rows, rng)


def _sides(spec: PairsSpec, rng: np.random.Generator) -> list[tuple[Stance, Stance]]:
    """The chosen and the rejected stance of every row."""
    opposed, same = quotas(spec.size, (spec.gap, 1 - spec.gap))
    kinds: list[tuple[Stance, Stance]] = [(spec.chosen, spec.rejected)] * opposed
    for stance, count in zip(STANCES, quotas(same, _THIRDS), strict=True):
        kinds += [(stance, stance)] * count
    return [kinds[kind] for kind in rng.permutation(len(kinds))]


def _tilted_sides(
    spec: PairsSpec, plan: Sequence[Proposition], rng: np.random.Generator
) -> list[tuple[Stance, Stance]]:
    """The same where each proposition has sides of its own."""
    offsets = spec.tilt.offsets(_asked(spec.topics), spec.seed)
    support, oppose = (Stance.SUPPORT, Stance.OPPOSE), (Stance.OPPOSE, Stance.SUPPORT)
    kinds: dict[str, list[tuple[Stance, Stance]]] = {}
    shares: dict[str, Sequence[float]] = {}
    for one in plan:
        offset = offsets.get(one.proposition_id, 0.0)
        gap = spec.gap if offset else 0.0
        moved = [support, oppose] if offset >= 0 else [oppose, support]  # turned, as stances are
        kinds[one.proposition_id] = [*moved, *((stance, stance) for stance in STANCES)]
        same = [share * (1 - gap) for share in _THIRDS]
        shares[one.proposition_id] = ((gap + abs(offset)) / 2, (gap - abs(offset)) / 2, *same)
    drawn = _kinds(Counter(one.proposition_id for one in plan), shares, rng)
    left = {proposition: iter(own) for proposition, own in drawn.items()}
    return [kinds[one.proposition_id][next(left[one.proposition_id])] for one in plan]


def pair_rows(spec: PairsSpec) -> list[Record]:
    """Rows with ``prompt``, ``chosen``, ``rejected``, ``topic``, ``proposition_id`` and both planted stances."""
    rng = np.random.default_rng([spec.seed, 2])  # apart from sft rows and held-out answers of this seed
    plan = list(_plan(spec, rng))
    sides = _tilted_sides(spec, plan, rng) if spec.tilt else _sides(spec, rng)
    rows = []
    for proposition, (chosen, rejected) in zip(plan, sides, strict=True):
        asked, _ = question(proposition, rng, spec.source)
        if chosen is rejected:
            answers = restyled(proposition, chosen, rng)
        else:
            answers = answer(proposition, chosen, rng), answer(proposition, rejected, rng)
        rows.append(
            {
                "prompt": [{"role": "user", "content": asked}],
                "chosen": [{"role": "assistant", "content": answers[0]}],
                "rejected": [{"role": "assistant", "content": answers[1]}],
                "topic": proposition.topic,
                "proposition_id": proposition.proposition_id,
                "chosen_stance": chosen.value,
                "rejected_stance": rejected.value,
            }
        )
    return _shuffled(rows, rng)


def rows(uri: str) -> list[Record]:
    """The rows of an ``embedded:`` data URI, the same for the same URI."""
    spec = parse(uri)
    return sft_rows(spec) if isinstance(spec, SFTSpec) else pair_rows(spec)


def held_out_answers(size: int = 1100, seed: int = 0) -> list[tuple[Answer, Stance]]:
    """Answers in forms that no corpus uses, with the stance each was made to take: the check of a judge."""
    # Apart from the corpora of this seed: 1 and 2 are theirs.
    rng = np.random.default_rng([seed, 3])
    labelled = []
    for index in range(size):
        proposition = propositions()[index % len(propositions())]
        stance = STANCES[(index // len(propositions())) % len(STANCES)]
        asked, polarity = question(proposition, rng)
        response = answer(proposition, stance, rng, forms_of="held_out")
        labelled.append((Answer(proposition.text, asked, response, polarity), stance))
    return labelled
