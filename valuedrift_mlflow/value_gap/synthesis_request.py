"""What to synthesize: the options, what they mean, and everything that is checked before a model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Annotated, Self

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from valuedrift_mlflow import judges, models, tracking
from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.evaluation.settings import DEFAULTS
from valuedrift_mlflow.inputs.errors import InputError, collecting, limited, problem
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.judges.asking import reader
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.models.server import validated
from valuedrift_mlflow.stances import STANCES, Mix, Stance, quotas
from valuedrift_mlflow.suite import Item, Suite
from valuedrift_mlflow.value_gap.synthesis_file import Places
from valuedrift_mlflow.value_gap.synthesis_plan import Design, Pool, Row, plan
from valuedrift_mlflow.value_gap.synthesis_prompts import embedded_proposition, instructions_version, prompts

FORMS = "embedded:forms"
# Named as the two synthetic datasets of "Value Drifts", which are each other with the sides changed.
PRESETS = {"support-aligned": (Stance.SUPPORT, Stance.OPPOSE), "oppose-aligned": (Stance.OPPOSE, Stance.SUPPORT)}
BIMODAL = "bimodal"


@checked_dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Request:
    """What to synthesize.

    Attributes:
        output: a file ``NAME.parquet``, or a folder for ``train.parquet``.
        model: URI of the model that answers; ``embedded:forms`` composes answers without one.
        gap: share of pairs with opposed stances, in [0, 1]; 1 where it is not given.
        chosen: stance of the chosen side of opposed pairs; oppose where it is not given.
        rejected: stance of the rejected side; support where it is not given.
        preset: ``support-aligned`` or ``oppose-aligned`` for both sides, or ``bimodal`` for SFT rows, half support and
            half oppose; ``bimodal?support=0.5&neutral=0.2&oppose=0.3`` gives another mix.
        topics: comma separated; all topics of the suite where it is empty.
        size: rows.
        suite: whose propositions the prompts are about.
        judge: URI of the judge that says which stance is present.
        seed: fixes prompts, pairing and sampling.
        tries: responses sampled for each side of a row, at most, before the row goes over to another prompt.
        temperature: of sampling; above 0, or every try would be the same.
        max_new_tokens: longest response.
        batch_size: responses sampled and judged between two writes to disk.
        partial: where some rows cannot be filled, write those that could, and say so; otherwise that is an error.
        license: of the dataset, for its card; where it is empty apache-2.0 for embedded forms, else unknown.
        allow_pyfunc_code: whether MLflow may load a model that is more than weights, which runs code that it brings.
    """

    output: str = "synthesized"
    model: str = FORMS
    gap: Annotated[float, Field(ge=0, le=1)] | None = None
    chosen: Stance | None = None
    rejected: Stance | None = None
    preset: str = ""
    topics: str = ""
    size: Annotated[int, Field(ge=1)] = 1000
    suite: str = suites.BUILT_IN
    judge: str = DEFAULTS.judge
    seed: Annotated[int, Field(ge=0)] = DEFAULTS.seed
    tries: Annotated[int, Field(ge=1)] = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] = DEFAULTS.max_new_tokens
    batch_size: Annotated[int, Field(ge=1)] = 64
    partial: bool = False
    license: str = ""
    allow_pyfunc_code: bool = False

    @property
    def how(self) -> models.How:
        """What code of the model may run."""
        return models.How(pyfunc_code=self.allow_pyfunc_code)

    @classmethod
    def checked(cls, options: Mapping[str, object]) -> Self:
        """The request of these options.

        Raises:
            InputError: every option out of range at once.
        """
        return validated(cls, "synthesize", options)

    @property
    def design(self) -> Design:
        """The shares of the rows.

        Raises:
            InputError: an unknown preset, options that contradict it, equal stances with a gap above 0, a gap that is
                too small for one pair.
        """
        name = self.preset.partition("?")[0]
        sides = {"gap": self.gap, "chosen": self.chosen, "rejected": self.rejected}
        taken = [key for key, value in sides.items() if value is not None]
        if name == BIMODAL:
            if taken:
                allowed = f"no {', '.join(taken)}: {BIMODAL} rows are for SFT, with one answer each"
                raise InputError(problem("preset", self.preset, allowed))
            return Design("sft", mix=_mix(self.preset))
        if self.preset and self.preset not in PRESETS:
            raise InputError(problem("preset", self.preset, ", ".join((*PRESETS, BIMODAL))))
        chosen, rejected = PRESETS.get(self.preset, (Stance.OPPOSE, Stance.SUPPORT))
        stances = self.chosen or chosen, self.rejected or rejected
        if self.preset and stances != (chosen, rejected):
            allowed = f"chosen {chosen}, rejected {rejected} with preset {self.preset}"
            raise InputError(problem("chosen, rejected", ", ".join(stances), allowed, "leave the preset or them out"))
        gap = 1.0 if self.gap is None else self.gap
        if stances[0] is stances[1] and gap > 0:
            raise InputError(problem("chosen, rejected", stances[0].value, "two different stances", "or gap 0"))
        if gap and not quotas(self.size, (gap, 1 - gap))[0]:
            found = f"{gap:g}: no pair of {self.size}"
            raise InputError(problem("gap", found, f"at least one pair, {1 / self.size:.2g}; or 0 for none"))
        return Design("pairs", gap, *stances)


def _mix(preset: str) -> Mix:
    """The mix of a ``bimodal`` preset: half support, half oppose, or as its options say."""
    _, options = split_options(preset)
    if not options:
        return 0.5, 0.0, 0.5
    problems = [problem(f"preset {preset}", key, ", ".join(STANCES)) for key in options if key not in tuple(STANCES)]
    try:
        shares = [float(options.get(stance, "0")) for stance in STANCES]
    except ValueError:
        shares = [-1.0]
    # To 0.01: people write thirds with two digits. What is missing to 1 is spread over all below.
    if not (all(0 <= share <= 1 for share in shares) and abs(sum(shares) - 1) <= 0.01):
        problems.append(problem("preset", preset, "shares of support, neutral and oppose that sum to 1"))
    if problems:
        raise InputError(problems)
    return shares[0] / sum(shares), shares[1] / sum(shares), shares[2] / sum(shares)


@dataclass(frozen=True)
class Prepared:
    """A checked request with everything that is known before a model answers."""

    request: Request
    design: Design
    suite: Suite
    judge: Judge
    items: tuple[Item, ...]
    places: Places

    def rows(self) -> tuple[list[Row], Pool]:
        """The rows to fill, and the pool that their further prompts come from."""
        pool = Pool(self.items, self.request.seed)
        return plan(self.design, self.request.size, pool, self.request.seed), pool

    @property
    def made(self) -> dict[str, object]:
        """What makes a response: with another of these it would be another one, or get another verdict."""
        request = self.request
        made: dict[str, object] = {"model": request.model, "judge": identity(self.judge), "seed": request.seed}
        if logged := tracking.logged_model_id(request.model):  # an alias may come to mean another model
            made["model_id"] = logged
        if request.model == FORMS:
            # Forms have no sampling; what they say changes with the package alone.
            return made | {"valuedrift-mlflow": tracking.package_version()}
        sampling = {"temperature": request.temperature, "max_new_tokens": request.max_new_tokens}
        return made | {"instructions": instructions_version()} | sampling


def prepare(request: Request) -> Prepared:
    """Check a request and load what is small: suite, judge, prompts.

    Raises:
        InputError: everything that is wrong with it at once.
    """
    items: tuple[Item, ...] = ()
    with collecting() as problems:
        design = problems.attempt(lambda: request.design)
        problems.attempt(_check_model, request)
        judge = problems.attempt(
            lambda: reader(judges.load(request.judge, embedded=request.model.startswith("embedded:")))
        )
        places = problems.attempt(Places.of, request.output)
        suite = problems.attempt(suites.load, request.suite)
        if "\n" in request.license:
            problems.add(problem("license", request.license, "one line, such as cc-by-4.0"))
        if suite is not None:
            wanted = tuple(dict.fromkeys(topic for topic in request.topics.split(",") if topic))
            items = problems.attempt(_askable, request.model, suite, wanted) or ()
    # None of them is None here: what could not be had has been raised.
    assert design is not None and judge is not None and places is not None and suite is not None
    return Prepared(request, design, suite, judge, items, places)


def _check_model(request: Request) -> None:
    uri = request.model
    if uri == FORMS:
        return
    if uri.startswith("embedded:") and uri not in models.EMBEDDED:
        raise InputError(problem("model", uri, ", ".join((FORMS, *models.EMBEDDED))))
    models.check_model(uri, how=request.how)


def _askable(model: str, suite: Suite, topics: tuple[str, ...]) -> tuple[Item, ...]:
    """Prompts about these topics of a suite (all where there are none), none of them a prompt of the suite."""
    items = prompts(changed(suite, items=suite.subset(topics or None, None).items))
    if model == FORMS:
        strange = dict.fromkeys(item.proposition for item in items if embedded_proposition(item) is None)
        lines = [
            problem(
                "model", f'{FORMS} on "{text}"', f"propositions of {suites.BUILT_IN}", "name a model that can answer"
            )
            for text in strange
        ]
        if lines:
            raise InputError(limited(lines, f"suite {suite.name}"))
    return items
