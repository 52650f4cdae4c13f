"""What an ablation crosses, and the cells and trainings that it comes to, found good before anything is computed."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from valuedrift_mlflow.data.datasets import TrainingData
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.pipeline.ablation_summary import Dose, cell_name
from valuedrift_mlflow.pipeline.designs import Design, load_design
from valuedrift_mlflow.pipeline.plan import Plan, Read, check_settings, evaluated, stage_data
from valuedrift_mlflow.pipeline.plan import prepare as prepare_plan
from valuedrift_mlflow.recipe.read import validate
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages.stage import BASE, Stage
from valuedrift_mlflow.suite import Suite

__all__ = ["Ablation", "Cell", "Design", "Training", "load_design", "prepare"]


@dataclass(frozen=True)
class Training:
    """One training of a stage: with which settings, from which other training, and on which plan."""

    name: str
    prototype: str  # the name of the recipe's stage
    stage: Stage  # under the training's own name, with its seed
    plan: Plan
    origin: Plan  # the whole recipe's, with the recipe's seed: that of the base model
    start: Training | None  # None: the base model
    reward: Training | None

    @cached_property
    def identity(self) -> str:
        """What is trained, from what and how it is measured, without any name: equal for equal trainings."""
        own = self.stage.model_dump(mode="json", exclude={"name", "start", "reward"})
        needed = [None if other is None else other.identity for other in (self.start, self.reward)]
        measured = [plan.recipe.model_dump(mode="json", exclude={"stages"}) for plan in (self.plan, self.origin)]
        told = [own, *needed, *measured, None if self.reward else self.stage.rated_by]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def lineage(self) -> tuple[str, ...]:
        """The names in the recipe of the stages that were trained up to this one."""
        return (*(self.start.lineage if self.start else ()), self.prototype)


@dataclass(frozen=True)
class _Choice:
    """A recipe with one dose of every axis, and a seed."""

    plan: Plan
    doses: tuple[Dose, ...]
    touched: Mapping[str, list[Dose]]  # the doses that change each stage; those of ``base`` change all
    seed: int


@dataclass(frozen=True)
class Cell:
    """One choice of the design, and the training that shows what it comes to."""

    series: str  # the stage, or with stages left out the stages that are left
    doses: tuple[Dose, ...]
    seed: int
    training: Training

    @property
    def name(self) -> str:
        """The cell in words: ``dpo, gap 0.5, seed 1``."""
        return cell_name(self.series, self.doses, self.seed)


@dataclass
class Ablation:
    """A design whose every cell has been found good."""

    recipe: Recipe
    source: str
    design: Design
    design_source: str
    cells: list[Cell]
    notes: Sequence[str]

    def trainings(self) -> list[Training]:
        """Every training that the cells need, in an order in which they can be run."""
        by_name: dict[str, Training] = {}

        def add(training: Training | None) -> None:
            if training is not None and training.name not in by_name:
                add(training.start)
                add(training.reward)
                by_name[training.name] = training

        for cell in self.cells:
            add(cell.training)
        return list(by_name.values())

    @property
    def from_base(self) -> bool:
        """Whether drift is measured from the base model, not from the model that the compared stage starts from."""
        return self.design.from_base


def prepare(recipe: Recipe, source: str, design: Design, design_source: str, read: Read = stage_data) -> Ablation:
    """Check everything that can be checked before any computing, and read the data of every cell with ``read``.

    Raises:
        InputError: all problems at once.
    """
    return _Preparation(recipe, source, design, read).ablation(design_source)


class _Preparation:
    """Makes the cells of a design; data, suites and judges that cells share are loaded once."""

    def __init__(self, recipe: Recipe, source: str, design: Design, read: Read) -> None:
        if wrong := design.problems("own"):
            raise InputError(wrong)
        self.source = source
        self.design = design
        self.read = read
        self.first = prepare_plan(recipe, source, read)
        self.recipe = self.first.recipe
        self.tree = self.recipe.model_dump(by_alias=True)
        self.names = [stage.name for stage in self.recipe.stages]
        self.plans = {self._own(self.recipe): self.first}
        self.data: dict[str, TrainingData] = {
            self._data_key(stage, self.recipe.base.model): self.first.data[stage.name] for stage in self.recipe.stages
        }
        self.trainings: dict[tuple[str, ...], Training] = {}

    def ablation(self, design_source: str) -> Ablation:
        compared = self._compared()
        cells: list[Cell] = []
        with collecting() as problems:
            for doses in itertools.product(*self.design.doses()):
                cells += problems.attempt(self._cells, doses, compared) or []
        return Ablation(self.recipe, self.source, self.design, design_source, cells, self.first.notes)

    def _cells(self, doses: tuple[Dose, ...], compared: Sequence[str]) -> list[Cell]:
        """The cells of one dose of every axis: each compared chain of stages with each seed."""
        variant, touched = self._variant(doses, compared)
        plan = self._plan(variant)
        cells: list[Cell] = []
        for (chain, series), seed in itertools.product(self._chains(variant, compared), self.design.seeds):
            training = self._training(_Choice(plan, doses, touched, seed), chain, compared=True)
            assert training is not None  # a chain has at least one stage
            cells.append(Cell(series, doses, seed, training))
        return cells

    def _compared(self) -> list[str]:
        """Names of the stages that the design compares."""
        if not self.recipe.stages:
            raise InputError(problem("recipe.stages", "no stage", "at least one stage"))
        if self.design.chains:
            return self._chained()
        needed = {name for stage in self.recipe.stages for name in (stage.start, stage.rated_by)}
        if not self.design.cells:
            return [s.name for s in self.recipe.stages if s.name not in needed and s.trains == "policy"]
        compared: list[str] = []
        wrong: list[str] = []
        for cell in self.design.cells:
            matching = [s.name for s in self.recipe.stages if s.name == cell] or [
                s.name for s in self.recipe.stages if s.algorithm == cell
            ]
            compared += matching
            if not matching:
                wrong.append(problem("design.cells", cell, ", ".join(self.names)))
        if wrong:
            raise InputError(wrong)
        return list(dict.fromkeys(compared))

    def _chained(self) -> list[str]:
        """Names of the stages that stand in a chain, each once."""
        known = [stage.name for stage in self.recipe.stages if stage.trains == "policy"]
        names = list(dict.fromkeys(name for chain in self.design.chains for name in chain))
        wrong = [problem("design.chains", name, ", ".join(known)) for name in names if name not in known]
        if wrong:
            raise InputError(wrong)
        return names

    def _variant(self, doses: Sequence[Dose], compared: Sequence[str]) -> tuple[Recipe, dict[str, list[Dose]]]:
        """The recipe with these doses, and which doses touch each of its stages (``base`` for all of them)."""
        # A deep copy: `_write` changes it in place, and the next doses begin from the recipe again.
        tree = json.loads(json.dumps(self.tree))
        touched: dict[str, list[Dose]] = {}
        for dose, key, value in ((own, *part) for own in doses for part in self.design.settings(own)):
            for name in self._addressed(key, compared):
                target = tree if name == BASE else next(s for s in tree["stages"] if s["name"] == name)
                _write(target, key.removeprefix(f"{self._head(key)}."), value)
                if dose not in touched.setdefault(name, []):
                    touched[name].append(dose)
        # Checked anew as a whole: a dose may be out of range, or of a type that its key does not take.
        return validate(tree), touched

    def _head(self, key: str) -> str:
        """The stage or algorithm that a key names; empty for a key of the recipe or of all compared stages."""
        head = re.split(r"[.?]", key)[0]
        return head if head in self.names or head in {stage.algorithm for stage in self.recipe.stages} else ""

    def _addressed(self, given: str, compared: Sequence[str]) -> list[str]:
        """The stages that a key changes; ``base`` stands for the recipe's own keys, which change everything."""
        key = given
        stages = {stage.name: stage for stage in self.recipe.stages}
        if head := self._head(given):
            key = key.removeprefix(f"{head}.")
            names = [head] if head in stages else [name for name, s in stages.items() if s.algorithm == head]
        elif re.split(r"[.?]", key)[0] in Recipe.model_fields:
            return [BASE]
        else:
            names = list(compared)
            if key.startswith("data"):  # the reward model of a stage is part of what its data does
                names += [reward for name in compared if (reward := stages[name].rated_by) in stages]
        if "?" in key and head not in stages:
            option = key.partition("?")[2]
            # A stage whose data do not know the option is left alone: its source would refuse it. One that is named is
            # meant, and its source says whether it knows the option.
            names = [name for name in names if option in split_options(stages[name].data.uri)[1]]
        if not names:
            raise InputError(problem("design.axes", given, "a key that a compared stage of the recipe has"))
        return list(dict.fromkeys(names))

    def _plan(self, variant: Recipe) -> Plan:
        """The plan of a variant; suite, judge and data are those of an earlier variant where they are the same."""
        known = self.plans.get(self._own(variant))
        if known is None:
            # Without stages: what they need is read once for all variants, below.
            known = self.plans[self._own(variant)] = prepare_plan(variant.model_copy(update={"stages": []}), "")
        anchors: dict[str, Suite | None] = {}
        held_out: dict[str, TrainingData | None] = {}
        with collecting() as problems:
            for stage in variant.stages:
                anchors[stage.name] = problems.attempt(self._anchors, stage, variant.base.model, known.suite)
                problems.attempt(check_settings, stage, variant)
                if stage.launch.nodes > 1:
                    where = f"{stage.name}.launch.nodes"
                    problems.add(problem(where, stage.launch.nodes, "1 in an ablation: its cells train on one machine"))
                if stage.eval_data is not None:
                    held_out[stage.name] = problems.attempt(self._rows, evaluated(stage), variant.base.model)
        data = {stage.name: self.data[self._data_key(stage, variant.base.model)] for stage in variant.stages}
        variant = variant.model_copy(update={"judge": known.recipe.judge})  # what `auto` stands for
        return Plan(
            variant, self.source, known.suite, known.judge, data, anchors, held_out=held_out, reference=known.reference
        )

    def _rows(self, stage: Stage, base: str) -> TrainingData:
        """The data of a stage that begins with the model ``base``, read where no earlier variant has read the same."""
        key = self._data_key(stage, base)
        if key not in self.data:
            self.data[key] = self.read(stage, base)
        return self.data[key]

    def _anchors(self, stage: Stage, base: str, suite: Suite) -> Suite | None:
        return stage.load_anchors(self._rows(stage, base).stance_mix, [suite])

    def _own(self, recipe: Recipe) -> str:
        # Suite, judge and base hang on nothing else of a recipe, so
        # that variants which differ in stages alone share them.
        return recipe.model_dump_json(exclude={"stages"})

    def _data_key(self, stage: Stage, base: str) -> str:
        # What `stage_data` reads by: the base model too, as its chat template
        # may refuse rows. The stage's name and settings are no part of it.
        return f"{base} {stage.kind} {stage.trained_turns} {stage.data.model_dump_json()}"

    def _chains(self, recipe: Recipe, compared: Sequence[str]) -> Iterator[tuple[list[Stage], str]]:
        """The stages that lead to each cell, and the cell's series."""
        # Compared stages may share the beginning of their chains: one set of stages is one cell.
        seen: set[tuple[str, ...]] = set()
        if self.design.chains:
            stages = {stage.name: stage for stage in recipe.stages}
            yield from (([stages[name] for name in chain], " → ".join(chain)) for chain in self.design.chains)
            return
        for name in compared:
            chain = _lineage(recipe, name)
            if not self.design.leave_out:
                yield chain, name
                continue
            for size in range(len(chain), 0, -1):
                for left in itertools.combinations(chain, size):
                    names = tuple(stage.name for stage in left)
                    if names not in seen:
                        seen.add(names)
                        yield list(left), " → ".join(names)

    def _training(self, choice: _Choice, chain: Sequence[Stage], *, compared: bool) -> Training | None:
        """The training at the end of a chain of stages; None for the base.

        It has the seed of its cell where the design compares or changes it, else the recipe's: then cells share it.
        """
        if not chain:
            return None
        stage, names = chain[-1], [stage.name for stage in chain]
        lineage = _lineage(choice.plan.recipe, stage.rated_by)
        if self.design.from_base:
            # A reward model rates, nothing starts from it: it stays, however many stages of the chain are left out.
            lineage = [other for other in lineage if other.name in names or other.trains == "reward"]
        start = self._training(choice, chain[:-1], compared=False)
        reward = self._training(choice, lineage, compared=False)
        concerned = {BASE, *names, *(other.name for other in lineage)}
        own = [dose for dose in choice.doses if any(dose in choice.touched.get(name, []) for name in concerned)]
        seed = choice.seed if compared or own or self.design.from_base else None
        # Cells that differ only in what does not concern this chain come to the same key: they share one training.
        key = (*names, *(dose.key + dose.label for dose in own), str(seed))
        if key not in self.trainings:
            words = ["-".join(names) if self.design.from_base else stage.name]
            words += [f"{dose.axis}{'-' if dose.number is None else ''}{dose.label}" for dose in own]
            words += [] if seed is None else [f"seed{seed}"]
            name = self._unique(re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-"))
            settings: dict[str, Any] = {"name": name, "start": start.name if start else BASE}
            settings |= {"reward": reward.name} if reward else {}
            settings |= {} if seed is None else {"seed": seed}
            renamed, plan = stage.model_copy(update=settings), choice.plan
            # With all that leads to it: where it has processes of its own
            # they validate this recipe as a whole (`launch._work`).
            before = [s for needed in (start, reward) if needed for s in needed.plan.recipe.stages]
            stages = [*{s.name: s for s in before}.values(), renamed]
            recipe = plan.recipe.model_copy(update={"stages": stages} | ({} if seed is None else {"seed": seed}))
            data, anchors = {name: plan.data[stage.name]}, {name: plan.anchors[stage.name]}
            held_out = {name: plan.held_out.get(stage.name)}
            own_plan = replace(plan, recipe=recipe, data=data, anchors=anchors, notes=[], held_out=held_out)
            self.trainings[key] = Training(name, stage.name, renamed, own_plan, plan, start, reward)
        return self.trainings[key]

    def _unique(self, name: str) -> str:
        # The name of a stage has 64 characters at most: four are left for a number.
        name, taken = name[:60], {training.name for training in self.trainings.values()}
        return next(n for n in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))) if n not in taken)


def _lineage(recipe: Recipe, name: str | None) -> list[Stage]:
    """A stage and the stages that it starts from, the first one first; nothing for what is no stage's name."""
    stages = {stage.name: stage for stage in recipe.stages}
    chain: list[Stage] = []
    while name in stages:
        chain.insert(0, stages[name])
        name = stages[name].start
    return chain


def _write(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, or with ``data?OPTION`` an option of the data's URI, in a dumped recipe or stage."""
    path, _, option = key.partition("?")
    if option:
        uri, options = split_options(tree["data"]["uri"])
        tree["data"]["uri"] = f"{uri}?{urlencode(options | {option: value}, safe=',')}"
        return
    *parents, last = path.split(".")
    for parent in parents:
        child = tree.get(parent)
        tree[parent] = tree = child if isinstance(child, dict) else {}
    tree[last] = value
