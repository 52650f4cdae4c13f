"""The entry point ``attribute``: which rows of a run's training moved the stances, as a run of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.notes import described
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.models.server import validated
from valuedrift_mlflow.pipeline.attributed import Opened, Options, Rebuilt, open_run, rebuild
from valuedrift_mlflow.pipeline.report import MovingRows, with_rows
from valuedrift_mlflow.report.display import Display, quiet_libraries
from valuedrift_mlflow.report.page import drawn
from valuedrift_mlflow.tracking import OpenRun
from valuedrift_mlflow.value_gap.attribution import report
from valuedrift_mlflow.value_gap.attribution.findings import dropped, found, pull
from valuedrift_mlflow.value_gap.attribution.influence import Attribution, Influences
from valuedrift_mlflow.value_gap.attribution.quantities import Answers, Measure, Questions
from valuedrift_mlflow.value_gap.attribution.report import Attributed
from valuedrift_mlflow.value_gap.attribution.rows import write_without
from valuedrift_mlflow.value_gap.attribution.sketch import Sketch

WITHOUT = "data/without_top_rows.jsonl"
_DROP = 0.02  # share of the rows that is left out where nobody says how many
_TRAINING = "train/runtime"


def attribute(
    run: str,
    topics: str = "",
    *,
    stage: str = "",
    drop: float | None = None,
    bound: float | None = None,
    checkpoints: int = Options.checkpoints,
    projection: int = Options.projection,
    measure: Literal["auto", "answers", "choice"] = "auto",
    normalise: Literal["adam", "none", "cosine"] = "adam",
    seed: int = 0,
) -> list[Attributed]:
    """Find which training rows moved the stances, and write an MLflow run about each stage; see ``Options``.

    Returns:
        For each attributed stage the influences of its rows in nats of log-odds, what they explain, and the rows that
        its data set without the top rows lacks.

    Raises:
        InputError: the run, its data or its checkpoints cannot be had, or the stage learns from no rows.
    """
    given: dict[str, object] = {
        "run": run,
        "topics": topics,
        "stage": stage,
        "drop": drop,
        "bound": bound,
        "checkpoints": checkpoints,
    }
    how = {"projection": projection, "measure": measure, "normalise": normalise, "seed": seed}
    return run_attribution(checked(given | how))


def checked(options: Mapping[str, object]) -> Options:
    """The options of an attribution.

    Raises:
        InputError: every option out of range at once.
    """
    return validated(Options, "attribute", options)


def run_attribution(options: Options, display: Display | None = None) -> list[Attributed]:
    """As ``attribute``, with progress on a display."""
    display = display or Display()
    opened = open_run(options)
    quiet_libraries()
    return [_stage(one, options, display) for one in opened]


def plan_lines(options: Options) -> list[str]:
    """What an attribution would do; nothing is computed."""
    lines = []
    for one in open_run(options):
        asked = ", ".join(quantity.name for quantity in one.quantities)
        points = ", ".join(map(str, one.points(options.checkpoints)))
        lines.append(
            f"{one.trained.name}: {len(one.work.data.rows):,} rows of {one.work.data.uri} on {asked}, gradients at the "
            f"steps {points} of {one.steps}"
        )
    return lines


def _stage(opened: Opened, options: Options, display: Display) -> Attributed:
    trained, stage = opened.trained, opened.work.stage
    parameters = {"run": options.run, "stage": trained.name, "checkpoints": str(options.checkpoints)}
    parameters |= {"topics": ",".join(quantity.name for quantity in opened.quantities)}
    parameters |= {name: str(getattr(options, name)) for name in ("projection", "normalise", "seed")}
    parameters |= {"measure": opened.measure}
    with tracking.run(
        "attribution", name=f"attribution · {trained.name}", stage=stage.word, parameters=parameters
    ) as run:
        tracking.log_tags(run, {"attributed_run": trained.run.run_id, "suite.hash": opened.work.plan.suite.hash})
        with display.live():
            result = _attributed(opened, options, display, run.run_id)
        _log(run, result)
        _show_in_pipeline(trained.parent, result, run.run_id)
    return result


def _attributed(opened: Opened, options: Options, display: Display, run_id: str) -> Attributed:
    trained, work = opened.trained, opened.work
    begun = time.perf_counter()
    points = opened.points(options.checkpoints)
    with temporary_folder() as scratch:
        rebuilt = rebuild(opened, Path(scratch), points)
        influences, changes = _influences(opened, options, rebuilt, points, display)
    scores = influences.scores.sum(2)
    each = [found(quantity.name, scores[:, q], changes[q]) for q, quantity in enumerate(opened.quantities)]
    pulled, source = pull(influences, changes), np.asarray(rebuilt.source, dtype=np.int64)
    share = _DROP if options.drop is None and options.bound is None else options.drop
    left_out = np.unique(source[dropped(pulled, share, options.bound)])
    training = tracking.step_values(trained.run.run_id, _TRAINING)
    cost = time.perf_counter() - begun, max(training.values(), default=0.0)
    how = "exact inner products" if not options.projection else f"projected to {options.projection}"
    method = f"measure {opened.measure}, gradients at the steps {', '.join(map(str, points))}, "
    method += f"normalise {options.normalise}, {how}"
    word = work.stage.word
    return Attributed(
        trained.name,
        trained.run.run_id,
        word,
        work.data,
        influences,
        source,
        rebuilt.exposed.seen,
        each,
        pulled,
        left_out,
        method,
        cost,
        _command(opened, run_id),
    )


def _measure(opened: Opened, rebuilt: Rebuilt) -> Measure:
    """How the quantities are had: by the model's forced choice, or of the answers that the run has kept."""
    plan = opened.work.plan
    recipe = plan.recipe
    if not opened.measured:
        return Questions(rebuilt.tokenizer, plan.suite, recipe.speech)
    speech, longest = recipe.speech, recipe.max_new_tokens
    return Answers(rebuilt.tokenizer, opened.measured, speech, recipe.temperature, longest)


def _influences(
    opened: Opened, options: Options, rebuilt: Rebuilt, points: list[int], display: Display
) -> tuple[Influences, list[float]]:
    """The influences, and how far each quantity moved from the start of the stage to its end."""
    rows = rebuilt.rows
    measure = _measure(opened, rebuilt)
    with rows.evaluating():
        before = [measure.value(rows.model, quantity) for quantity in opened.quantities]
    optimizer = rebuilt.optimizer if options.normalise == "adam" else rebuilt.optimizer.plain
    sketch = Sketch(rows.sizes, options.projection, options.seed) if options.projection else None
    attribution = Attribution(
        rows,
        measure,
        opened.quantities,
        rebuilt.exposed,
        optimizer,
        rebuilt.clipped,
        sketch,
        cosine=options.normalise == "cosine",
    )
    display.start("rows", int((rebuilt.exposed.weights != 0).sum()), f"gradients of {opened.trained.name}")
    influences = attribution.run(rebuilt.visit(points), lambda count: display.advance("rows", count))
    return influences, [after - start for after, start in zip(influences.values[-1], before, strict=True)]


def _command(opened: Opened, run_id: str) -> str:
    """What trains the stage again without the top rows, with the settings that its run has recorded."""
    work = opened.work
    stage, recipe = work.stage, work.plan.recipe
    settings = [
        f"{stage.algorithm}.{key.partition('.')[2]}={value}"
        for key, value in stage.parameters().items()
        if not key.endswith((".algorithm", ".from")) and ".data" not in key and " " not in value
    ]
    measured = [
        f"{key}={getattr(recipe, key)}" for key in ("suite", "judge", "samples", "temperature", "max_new_tokens")
    ]
    given = " ".join([*settings, *measured, f"seed={work.seed}"])
    name = stage.algorithm.replace("_", "-")
    data = f'"$(mlflow artifacts download -u runs:/{run_id}/{WITHOUT} | tail -n 1)"'  # the last line is the file
    return f'valuedrift {name} --model {work.start_uri} --set "{given}" --data {data}'


def _show_in_pipeline(parent: str | None, result: Attributed, run_id: str) -> None:
    """Put the first rows into the report of the pipeline that the stage is part of, where it has one."""
    page = tracking.text_of(parent, "report.html") if parent else ""
    if not parent or not page:
        return
    shown = with_rows(page, result.stage, MovingRows(run_id, " ".join(report.lead(result)), report.first_rows(result)))
    tracking.log_text(OpenRun.continued(parent), shown, "report.html")


def _log(run: OpenRun, result: Attributed) -> None:
    """Write the tables, the figures, the page, every influence and the data set without the top rows."""
    tracking.log_metrics(run, report.metrics(result), 0)
    tracking.log_table(run, report.top_table(result), "influence_table.json")
    pictures = drawn(report.figures(result))
    tracking.log_figures(run, pictures)
    tracking.log_text(run, report.html(result, pictures), "report.html")
    files = {"report": "report.html", "figures": "figures", "the rows with the most influence": "influence_table.json"}
    lead = " ".join(report.lead(result))
    tracking.describe(run, described(run.run_id, lead, report.first_rows(result), [result.method], files))
    with temporary_folder() as scratch:
        influences, without = Path(scratch) / "influences.parquet", Path(scratch) / Path(WITHOUT).name
        report.all_rows(result).to_parquet(influences)
        tracking.log_file(run, influences, "")
        write_without(result.data, result.left_out.tolist(), without)
        tracking.log_file(run, without, str(Path(WITHOUT).parent))
