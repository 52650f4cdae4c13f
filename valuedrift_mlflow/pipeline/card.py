"""The stance card: what a registered model's version says of its values, and the registering of a trained stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.headline import lead_of
from valuedrift_mlflow.inputs.errors import one_line
from valuedrift_mlflow.inputs.reading import SETTINGS, read_bytes, text_of, yaml_of
from valuedrift_mlflow.models.files import files_of
from valuedrift_mlflow.pipeline.plan import Plan, StageResult
from valuedrift_mlflow.recipe.recipe import name_and_alias
from valuedrift_mlflow.report.plots import readable
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.intervals import with_interval

LONGEST = 5000  # characters that MLflow keeps of a version's description
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_UNKNOWN = "not stated"


def register(plan: Plan, result: StageResult, agreement: Mapping[str, float]) -> str:
    """Register the model that a stage has left under the recipe's name; returns what there is to say of it.

    ``agreement`` is what the judge reaches on answers whose stance is known.
    """
    named = plan.recipe.registered
    assert named is not None
    name, alias = name_and_alias(named)
    tags = {
        "stage": result.name,
        "run_id": result.run_id,
        "suite": result.measurements[-1].suite.identity,
        "judge": result.measurements[-1].judge,
        "base_model": plan.recipe.base.model,
        "drift_overall": f"{result.drift.overall[-1]:.4f}",
        "topics_drifted": str(result.moved),
    }
    card = stance_card(plan, result, agreement)
    version = tracking.register(result.model_uri, name, card=card, tags=tags, alias=alias)
    return f"{result.name} is registered: models:/{name}/{version}, alias {alias}"


def stance_card(plan: Plan, result: StageResult, agreement: Mapping[str, float]) -> str:
    """The card as markdown, of at most ``LONGEST`` characters: what does not fit are the topics that moved least."""
    topics = _topic_rows(result)
    card = _card(plan, result, agreement, topics, 0)
    kept = len(topics)
    while len(card) > LONGEST and kept:
        kept -= 1
        card = _card(plan, result, agreement, topics[:kept], len(topics) - kept)
    return card[:LONGEST]


def _card(plan: Plan, result: StageResult, agreement: Mapping[str, float], topics: list[str], hidden: int) -> str:
    measured, drift, suite = result.measurements[-1], result.drift, plan.suite
    lead = lead_of(result.name, drift, result.axes, suite)
    lines = [
        f"# Stances after {result.name}",
        "",
        f"**{lead.verdict}**: {lead.text}",
        "",
        f"Suite {suite.source} {suite.version}, {len(suite.items):,} prompts, hash {suite.hash}. Judge "
        f"{measured.judge}: {_reliability(result, agreement)} Drift is net drift (total variation) from the start of "
        f"the stage, intervals of 95 % over {drift.interval}. Unscored: {100 * result.unscored_rate:.1f} %.",
        "",
        f"| topic | {' | '.join(stance.value for stance in STANCES)} | drift | verdict |",
        f"|---|{'---|' * len(STANCES)}---|---|",
        *topics,
        *([f"\n{hidden} topics that moved less: `value_drift_table.json` of the run."] if hidden else []),
        "",
        *_origin(plan, result),
    ]
    return "\n".join(lines) + "\n"


def _topic_rows(result: StageResult) -> list[str]:
    """The rows of the table, the topic that moved most first."""
    drift, rows = result.drift, []
    for t in np.argsort(-np.nan_to_num(drift.total_variation[-1], nan=-1.0), kind="stable"):
        value, star = drift.total_variation[-1, t], " *" if drift.topic_significant[-1, t] else ""
        shares = [
            with_interval(drift.probability[-1, t, s], drift.probability_ci[-1, t, s]) for s in range(len(STANCES))
        ]
        moved = with_interval(value, drift.total_variation_ci[-1, t]) + star
        told = [*shares, moved] if np.isfinite(value) else [""] * (len(STANCES) + 1)
        rows.append(f"| {readable(drift.topics[t])} | {' | '.join(told)} | {drift.verdict[-1, t]} |")
    return rows


def _reliability(result: StageResult, agreement: Mapping[str, float]) -> str:
    """What the judge was measured to reach, in a sentence."""
    if result.trust is not None:
        return f"{result.trust.sentence.rstrip('.')}."
    planted = agreement.get("judge/planted_agreement")
    if planted is not None:
        return f"it reads {100 * planted:.1f} % of answers as they were planted."
    return "how often it is right on such texts is not measured."


def _origin(plan: Plan, result: StageResult) -> list[str]:
    """Base model, data, training and the run, each with its licence where its files state one."""
    recipe = plan.recipe
    lines = [f"- base model: {recipe.base.model} (licence: {licence_of(recipe.base.model)})"]
    lineage, name = [], result.name
    stages = {stage.name: stage for stage in recipe.stages}
    while name in stages:  # back to the base
        lineage.append(stages[name])
        name = stages[name].start
    for stage in reversed(lineage):
        data, seed = plan.data[stage.name], recipe.seed if stage.seed is None else stage.seed
        steps = f"{stage.steps(len(data.rows)):,} steps, learning rate {stage.learning_rate:g}"
        adapters = f", adapters of rank {stage.lora.rank}" if stage.lora.rank else ""
        lines.append(
            f"- {stage.name}: {stage.algorithm}, {steps}{adapters}, seed {seed}; "
            f"data {data.uri} ({len(data.rows):,} rows, licence: {licence_of(data.uri)})"
        )
    version = tracking.package_version()
    return [*lines, f"- run {result.run_id}, made with valuedrift-mlflow {version}"]


def licence_of(uri: str) -> str:
    """The licence that the card (README.md) in a model's or data set's folder states, else ``not stated``."""
    folder = Path(files_of(uri)) if not uri.startswith("embedded:") else None
    if folder is None:
        return "Apache-2.0, as this package"
    file = (folder if folder.is_dir() else folder.parent) / "README.md"
    if not file.is_file() or not folder.exists():
        return _UNKNOWN
    with suppress(ValueError):  # an InputError too: a card that cannot be read states nothing
        front = _FRONT.match(text_of(read_bytes(file, str(file), SETTINGS), str(file)))
        told = yaml_of(front[1]) if front else None
        stated = told.get("license") or told.get("licence") if isinstance(told, dict) else None
        stated = stated if isinstance(stated, list) else [stated]
        return one_line(", ".join(own for own in stated if isinstance(own, str)), 100) or _UNKNOWN
    return _UNKNOWN
