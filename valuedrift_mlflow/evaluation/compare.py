"""Several models, runs and tables of responses held against one of them, in a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from valuedrift_mlflow import judges, tracking
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.axis_metrics import axis_shifts
from valuedrift_mlflow.evaluation.changes import Change, changes_table, largest_changes
from valuedrift_mlflow.evaluation.evaluate import Config, opened, run_evaluation
from valuedrift_mlflow.evaluation.kept import logged_measurements
from valuedrift_mlflow.evaluation.measurement import Measurement, finite, judge_existing, no_progress
from valuedrift_mlflow.evaluation.metrics import analyse_measurements, topics_drifted, topics_undecided
from valuedrift_mlflow.evaluation.responses import load_responses
from valuedrift_mlflow.evaluation.subjects import SuiteLike, suite_of
from valuedrift_mlflow.evaluation.targets import Matched, Target, found, matched, named_apart
from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.judges.auto import resolved
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.models import EMBEDDED
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.axes import AxisShifts
from valuedrift_mlflow.statistics.drift import Drift

if TYPE_CHECKING:
    import pandas as pd

    from valuedrift_mlflow.models.generation import Progress

_JUDGE_ALL = "give judge=URI to have all of them judged by it"
_CHOICE = "likelihood"
OVERALL_TABLE, TOPICS_TABLE, DIFFERENCES_TABLE = "comparison", "comparison_topics", "largest_differences"


@dataclass(frozen=True)
class Prepared:
    """A comparison whose every target has been found good; the baseline stands first."""

    matched: Matched
    judge: Judge

    @property
    def config(self) -> Config:
        """The settings of those that have to be asked, and of the analysis."""
        return self.matched.settings

    @property
    def targets(self) -> Sequence[Target]:
        """The baseline, then all others."""
        return self.matched.targets

    @property
    def to_ask(self) -> list[Target]:
        """Those that have to be asked anew."""
        return [target for target in self.targets if target.run is None and not target.table]


@dataclass(frozen=True)
class Compared:
    """What a comparison came to.

    Checkpoint 0 of ``drift`` and ``axes`` is the baseline, the others are the targets, in one family of tests.
    """

    targets: Sequence[Target]
    measurements: Sequence[Measurement]
    drift: Drift
    axes: AxisShifts
    changes: Sequence[tuple[str, Change]]
    notes: Sequence[str]
    config: Config

    @property
    def names(self) -> list[str]:
        """What the targets are called, without the baseline."""
        return [target.name for target in self.targets[1:]]


@dataclass(frozen=True)
class Comparison:
    """A comparison's tables, and the run that holds them with the report.

    Attributes:
        run_id: the run.
        overall: one row for each target.
        topics: one row for each target and topic.
        differences: answers side by side to what differs most, one row each.
        notes: what differs between the measurements and may, in words.
    """

    run_id: str
    overall: pd.DataFrame
    topics: pd.DataFrame
    differences: pd.DataFrame
    notes: tuple[str, ...]


def prepare(
    targets: str | Sequence[str],
    baseline: str | None = None,
    *,
    judge: str = "",
    suite: SuiteLike = "",
    settings: Mapping[str, object] | None = None,
    otherwise: Mapping[str, object] | None = None,
) -> Prepared:
    """Find everything that a comparison names.

    ``settings`` hold for all; ``otherwise`` stand in where no target was measured before and says it.

    Raises:
        InputError: fewer than two things to compare, what cannot be found, what was measured with different suites,
            judges or sampling settings and can neither be judged again nor asked anew.
    """
    named = settings or {}
    given = Config.checked({**(otherwise or {}), **named, **({"judge": judge} if judge else {})})
    uris = [uri.strip() for uri in (targets.split(",") if isinstance(targets, str) else targets) if uri.strip()]
    first: list[Target] = []
    others: list[Target] = []
    with collecting() as problems:
        if baseline:
            first = problems.attempt(found, baseline, "baseline", given.how) or []
        for uri in uris:
            others += problems.attempt(found, uri, "targets", given.how) or []
        if len(first) > 1:
            names = ", ".join(target.name for target in first)
            problems.add(problem("baseline", f"{baseline}, a pipeline of {names}", "one model, run or table"))
    if len(first) + len(others) < 2:
        raise InputError(problem("targets", ", ".join(uris) or "nothing", "at least two models, runs or tables"))
    ready = matched(named_apart([*first, *others]), suite_of(suite), given, named)
    chosen = _judge_of(ready, judge)
    ready = replace(ready, settings=ready.settings.model_copy(update={"judge": chosen}))
    return Prepared(_asked_in_its_way(ready, chosen), judges.load(chosen))


def _judge_of(ready: Matched, given: str) -> str:
    """The URI of the judge of all.

    Raises:
        InputError: measurements by several judges, and none is given.
    """
    by_judge: dict[str, list[str]] = {}
    for target in ready.targets:
        if target.run is not None and "judge" in target.run.settings:
            by_judge.setdefault(target.run.settings["judge"], []).append(target.name)
    if given or not by_judge:
        first = next((target.model for target in ready.targets if target.model), "")
        return resolved(given or ready.settings.judge, embedded=first.startswith(EMBEDDED), evaluated=first)[0]
    if len(by_judge) > 1:
        told = "; ".join(f"{judge} ({', '.join(names)})" for judge, names in by_judge.items())
        raise InputError(problem("judge", told, "one judge for all", _JUDGE_ALL))
    return next(iter(by_judge))


def _asked_in_its_way(ready: Matched, judge: str) -> Matched:
    """The targets without the measurements that a judge cannot judge again: a forced choice has no responses.

    Raises:
        InputError: there is nothing that could be asked instead.
    """
    kept = []
    with collecting() as problems:
        for target in ready.targets:
            by = target.run.settings.get("judge", judge) if target.run else judge
            other = by != judge and _CHOICE in (by.partition("?")[0], judge.partition("?")[0])
            if (other or (target.table and judge.startswith(_CHOICE))) and not target.model:
                problems.add(problem(f"{target.uri} judge", by, judge, "responses cannot be judged by a forced choice"))
            kept.append(replace(target, measured=()) if other else target)
    return replace(ready, targets=kept)


def run_comparison(prepared: Prepared, progress: Progress = no_progress) -> tuple[Comparison, Compared]:
    """Measure what has not been measured, compare, and log it all to a run; evaluations are runs below it."""
    names = ", ".join(target.name for target in prepared.targets[1:])
    parameters = {
        "targets": ",".join(target.uri for target in prepared.targets[1:]),
        "baseline": prepared.targets[0].uri,
        **{key: value for key, value in prepared.config.parameters().items() if key != "baseline"},
    }
    name = f"compare · {len(prepared.targets) - 1} with {prepared.targets[0].name}"
    with tracking.run("comparison", name=name, parameters=parameters) as active:
        dataset = recorded.log_suite(active, prepared.matched.suite)
        for model_id in dict.fromkeys(filter(None, map(_model_id, prepared.targets))):
            tracking.used_model(active, f"models:/{model_id}")
        compared = compare_measured(prepared, [_measured(target, prepared, progress) for target in prepared.targets])
        tables = tables_of(compared)
        for file, table in tables.items():
            tracking.log_table(active, table, f"{file}.json")
        tracking.log_metrics(active, metrics_of(compared), 0, dataset=dataset)
        tracking.describe(active, f"{names} against {prepared.targets[0].name}")
        _log_report(active, compared)
    overall, topics, differences = tables[OVERALL_TABLE], tables[TOPICS_TABLE], tables[DIFFERENCES_TABLE]
    return Comparison(active.run_id, overall, topics, differences, tuple(compared.notes)), compared


def _log_report(run: tracking.OpenRun, compared: Compared) -> None:
    from valuedrift_mlflow.evaluation.compare_report import comparison_figures, comparison_html
    from valuedrift_mlflow.report.page import drawn

    pictures = drawn(comparison_figures(compared))
    tracking.log_figures(run, pictures)
    tracking.log_text(run, comparison_html(compared, pictures), "report.html")


def _model_id(target: Target) -> str | None:
    """The LoggedModel that a target is; None where it is none."""
    if target.model:
        return tracking.logged_model_id(target.model)
    return target.run.model_id if target.run is not None else None


def _measured(target: Target, prepared: Prepared, progress: Progress) -> Measurement:
    """The measurement of a target: the one that it has, read or judged again, or a new one in a run of its own."""
    suite, config, judge = prepared.matched.suite, prepared.config, prepared.judge
    if target.run is not None:
        steps = logged_measurements(
            target.run.run_id, suite, config.refusal, target.uri, "compare answers to one suite"
        )
        kept = {one.step: one for one in steps}
        own = kept.get(target.run.step, steps[-1]) if target.run.step is not None else steps[-1]
        if own.judge == identity(judge):
            return own
        said = [(one.item, one.sample, one.response) for one in own.responses]
        return judge_existing(said, suite, judge, step=own.step, refusal=config.refusal)
    if target.table:
        step, said = list(load_responses(target.table, suite).by_step.items())[-1]
        return judge_existing(said, suite, judge, step=step, refusal=config.refusal)
    ready = opened(config.model_copy(update={"baseline": None}), target.model, suite=suite)
    return run_evaluation(ready, progress)[1].measurement


def compare_measured(prepared: Prepared, measurements: Sequence[Measurement]) -> Compared:
    """Hold measurements against the first: drift of each in one family of tests, and the answers that differ most."""
    config, targets = prepared.config, prepared.targets
    # One after the other as checkpoints are: their own steps say nothing here.
    placed = [replace(own, step=place) for place, own in enumerate(measurements)]
    drift = analyse_measurements(placed, config.seed, interval=config.interval, margin=config.margin, with_course=False)
    shifts = axis_shifts(placed, drift.steps.tolist(), config.seed)
    changes = [
        (target.name, change)
        for place, target in enumerate(targets[1:], start=1)
        for change in _changes(placed[0], placed[place], drift, place)
    ]
    return Compared(targets, placed, drift, shifts, changes, prepared.matched.notes, config)


def _changes(before: Measurement, after: Measurement, drift: Drift, place: int) -> list[Change]:
    starred = [topic for t, topic in enumerate(drift.topics) if drift.topic_significant[place, t]]
    return largest_changes(before, after, starred) if starred else []


def metrics_of(compared: Compared) -> dict[str, float]:
    """``compare/TARGET/drift_overall``, ``.../topics_drifted`` and ``.../topics_undecided``."""
    metrics: dict[str, float] = {}
    for place, name in enumerate(compared.names, start=1):
        key = tracking.metric_name(name)
        metrics[f"compare/{key}/drift_overall"] = float(compared.drift.overall[place])
        metrics[f"compare/{key}/topics_drifted"] = float(topics_drifted(compared.drift, place))
        metrics[f"compare/{key}/topics_undecided"] = float(topics_undecided(compared.drift, place))
    return finite(metrics)


def tables_of(compared: Compared) -> dict[str, pd.DataFrame]:
    """The tables of a comparison, by the names of their files."""
    import pandas as pd

    drift, baseline = compared.drift, compared.targets[0].name
    overall: list[dict[str, object]] = []
    topics: list[dict[str, object]] = []
    for place, target in enumerate(compared.targets):
        stances = {s.value: drift.overall_probability[place, k] for k, s in enumerate(STANCES)}
        row: dict[str, object] = {"target": target.name, "uri": target.uri, "baseline": baseline, **stances}
        if place:
            low, high = drift.overall_ci[place]
            row |= {"drift": drift.overall[place], "drift_ci_low": low, "drift_ci_high": high}
            row |= {"drift_within": drift.overall_within[place], "topics_drifted": topics_drifted(drift, place)}
            row |= {"topics_undecided": topics_undecided(drift, place)}
            topics += [_topic_row(compared, place, t) for t in range(len(drift.topics))]
        overall.append(row)
    tables = {OVERALL_TABLE: pd.DataFrame(overall), TOPICS_TABLE: pd.DataFrame(topics)}
    tables = {name: table.astype(object).where(table.notna(), None) for name, table in tables.items()}
    return tables | {DIFFERENCES_TABLE: changes_table(compared.changes).rename(columns={"stage": "target"})}


def _topic_row(compared: Compared, place: int, t: int) -> dict[str, object]:
    drift = compared.drift
    low, high = drift.total_variation_ci[place, t]
    return {
        "target": compared.targets[place].name,
        "topic": drift.topics[t],
        **{s.value: drift.probability[place, t, k] for k, s in enumerate(STANCES)},
        **{f"{s.value}_change": drift.magnitude[place, t, k] for k, s in enumerate(STANCES)},
        "drift": drift.total_variation[place, t],
        "drift_ci_low": low,
        "drift_ci_high": high,
        "p_adjusted": drift.topic_p_adjusted[place, t],
        "significant": bool(drift.topic_significant[place, t]),
        "verdict": str(drift.verdict[place, t]),
        "minimum_detectable": drift.minimum_detectable[place, t],
    }


def compare(
    targets: str | Sequence[str],
    baseline: str | None = None,
    *,
    judge: str = "",
    suite: SuiteLike = "",
    progress: Progress = no_progress,
    **settings: object,
) -> Comparison:
    """Compare models, registry versions, checkpoints, runs and tables of responses with one of them.

    What a run has sampled with the same suite and settings is read, never sampled anew; what has not been measured is
    evaluated in a run below that of the comparison.

    Args:
        targets: model URIs, run ids, ``runs:/RUN_ID`` (a pipeline stands for its base and all its stages), checkpoints,
            tables of responses; a list, or one text with commas.
        baseline: what the others are held against; the first target where it is not given.
        judge: the judge of all; responses that another one has judged are judged again.
        suite: the suite of all; else that of the first target that was measured.
        progress: called with the number of responses generated.
        settings: those of `evaluate`, for what has to be asked.

    Returns:
        Tables of all targets, of their topics, and of the answers that differ most.

    Raises:
        InputError: before any computing: what cannot be found, or was measured with different suites, judges or
            sampling settings and can neither be judged again nor asked anew.
    """
    return run_comparison(prepare(targets, baseline, judge=judge, suite=suite, settings=settings), progress)[0]
