"""What each command does with a validated recipe and its parsed flags; it checks the rest before it computes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.cli.ablate_job import ablate_job, designed
from valuedrift_mlflow.cli.attribute_job import attribute_job
from valuedrift_mlflow.cli.commands import Command
from valuedrift_mlflow.cli.compare_job import compare_job
from valuedrift_mlflow.cli.gate_job import gate_job
from valuedrift_mlflow.cli.judge_jobs import check_judge_job, review_job, train_judge_job
from valuedrift_mlflow.cli.log_judge_job import log_judge_job
from valuedrift_mlflow.cli.replay_job import replay_job
from valuedrift_mlflow.cli.show import show_audit, show_discovery, show_trust
from valuedrift_mlflow.evaluation.settings import Measuring
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import output_path
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages.stage import Online
from valuedrift_mlflow.stances import Label
from valuedrift_mlflow.tracking import EarlierRun, check_free, how_to_open

if TYPE_CHECKING:
    from valuedrift_mlflow.evaluation.evaluate import Opened
    from valuedrift_mlflow.pipeline.plan import Plan, StageResult
    from valuedrift_mlflow.report.display import Display


_FIRST = 3  # rows that a dry run shows
_STAGES = 4  # whose axis shifts fit a line of 120 characters


def show_plan(recipe: Recipe, source: str, resumed: str = "", *, alone: bool = False) -> None:
    """Check a recipe (or a stage alone) without computing anything and print what it would do.

    ``resumed`` is the id of the run that it would go on with.
    """
    from valuedrift_mlflow.pipeline import dry_run
    from valuedrift_mlflow.pipeline.resumed import lines_of
    from valuedrift_mlflow.recipe.recipe import name_and_alias
    from valuedrift_mlflow.report.display import Display

    plan = dry_run.dry_run(recipe, source)
    goes_on = lines_of(resumed, _begun(plan.plan, resumed, alone)) if resumed else []
    display = Display()
    dry_run.show(plan, display)
    for line in goes_on:
        display.line(line)
    display.line(dry_run.measured_line(plan, base=not alone))
    display.line(dry_run.logged_line(plan, base=not alone))
    if any(entry.stage.trains == "policy" for entry in plan.stages):
        display.line(dry_run.certainty_line(plan))
    if recipe.registered is not None:
        name, alias = name_and_alias(recipe.registered)
        display.line(f"the model of the last stage becomes a version of {name}, with the alias {alias}")


def on_machines(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Write the flags that say how many machines train, and where they meet, into every stage that can have several.

    Raises:
        InputError: the number is none.
    """
    nodes, rendezvous = getattr(arguments, "nodes", ""), getattr(arguments, "rendezvous", "")
    if nodes and not (nodes.isdecimal() and int(nodes) >= 1):
        raise InputError(problem("nodes", nodes, "a whole number of at least 1"))
    for stage in recipe.stages:
        if nodes and stage.trains == "policy":
            stage.launch.nodes = int(nodes)
        if rendezvous:
            stage.launch.rendezvous = rendezvous


def _begun(plan: Plan, resumed: str, alone: bool) -> Mapping[str, EarlierRun]:
    """The stages that a run which goes on has begun."""
    from valuedrift_mlflow.pipeline.resumed import begun_stage, begun_stages

    check_free(resumed)
    return {plan.recipe.stages[0].name: begun_stage(plan, resumed)} if alone else begun_stages(plan, resumed)


def main_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Every stage of the recipe."""
    from valuedrift_mlflow.pipeline.plan import SUMMARY_COLUMNS, certainty_lines, prepare, summary_rows
    from valuedrift_mlflow.report.display import Display

    on_machines(recipe, arguments)
    if arguments.dry_run:
        show_plan(recipe, arguments.recipe, arguments.resume)
        return
    display, plan = Display(), prepare(recipe, arguments.recipe)
    from valuedrift_mlflow.pipeline import launch, nodes
    from valuedrift_mlflow.pipeline.pipeline import run_pipeline  # heavy: only once the recipe is found good

    with nodes.met(plan.recipe, display) as meeting:
        if meeting is not None and meeting.rank:
            launch.follow(meeting, plan, display)
            return
        results = run_pipeline(plan, display, arguments.resume or None)
    show_shifts(results, display)
    display.table("Net drift", SUMMARY_COLUMNS, summary_rows(results))
    for line in certainty_lines(results):
        display.line(line)
    display.line(how_to_open())


def show_shifts(results: Sequence[StageResult], display: Display) -> None:
    """What each stage moved along the axes of the suite's values; a line is too short for many stages."""
    from valuedrift_mlflow.pipeline.axis_report import TITLE, shift_rows

    columns, rows = shift_rows(results)
    if len(columns) > _STAGES + 1:
        display.line(f"Axis shifts of {len(columns) - 1} stages: report.html")
    elif rows:
        display.table(TITLE, columns, rows)


def stage_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """A recipe's single stage as a run of its own."""
    from valuedrift_mlflow.pipeline.plan import SUMMARY_COLUMNS, RewardResult, certainty_lines, prepare, summary_rows
    from valuedrift_mlflow.report.display import Display

    if [stage.algorithm for stage in recipe.stages] != [own.name]:
        found = ", ".join(stage.algorithm for stage in recipe.stages)
        raise InputError(problem("recipe.stages", found, f"one stage of {own.name}", "run the entry point main"))
    # Not every algorithm has each flag (`Stage.flags`). What the URIs name is checked by `prepare`, below.
    if getattr(arguments, "model", ""):
        recipe.base.model = arguments.model
    if getattr(arguments, "data", ""):
        recipe.stages[0].data.uri = arguments.data
    if getattr(arguments, "reward", "") and isinstance(recipe.stages[0], Online):
        recipe.stages[0].reward = arguments.reward
    on_machines(recipe, arguments)
    if arguments.dry_run:
        show_plan(recipe, arguments.recipe, getattr(arguments, "resume", ""), alone=True)
        return
    display, plan = Display(), prepare(recipe, arguments.recipe)
    from valuedrift_mlflow.pipeline import launch, nodes
    from valuedrift_mlflow.pipeline.pipeline import run_single_stage  # heavy: only once the recipe is found good

    with nodes.met(plan.recipe, display) as meeting:
        if meeting is not None and meeting.rank:
            launch.follow(meeting, plan, display)
            return
        result = run_single_stage(plan, display, getattr(arguments, "resume", "") or None)
    if isinstance(result, RewardResult):
        kept = recipe.checkpoints.log != "none"
        display.line(f"The reward model: {result.model_uri if kept else 'not kept (checkpoints.log: none)'}")
    else:
        show_shifts([result], display)
        display.table("Net drift", SUMMARY_COLUMNS, summary_rows([result]))
        for line in certainty_lines([result]):
            display.line(line)
    display.line(how_to_open())


def evaluate_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``evaluate``: the recipe's measurement settings on one model, or on its responses."""
    from valuedrift_mlflow.evaluation.certainty import measured_line, unscored_line
    from valuedrift_mlflow.evaluation.evaluate import Config, opened, run_evaluation
    from valuedrift_mlflow.evaluation.reference import sentence
    from valuedrift_mlflow.evaluation.report import axes_of, evaluation_rows, labels_section
    from valuedrift_mlflow.evaluation.subjects import Asked
    from valuedrift_mlflow.report.display import Display, quiet_libraries

    recipe.judge = arguments.judge or recipe.judge
    if arguments.samples:
        if not arguments.samples.isdecimal() or int(arguments.samples) < 1:
            raise InputError(problem("samples", arguments.samples, "a whole number of at least 1"))
        recipe.samples = int(arguments.samples)
    recipe.reference = arguments.reference or recipe.reference
    baseline, responses = arguments.baseline or None, arguments.responses or None
    model = arguments.model or (None if responses else recipe.base.model)
    display = Display()
    quiet_libraries()
    # Of the recipe what is said of measuring alone: `Config` knows no stages, and refuses what it does not know.
    measuring = recipe.model_dump(include={*Measuring.model_fields, "allow_pyfunc_code"})
    config = Config(baseline=baseline, trust_remote_code=recipe.base.trust_remote_code, **measuring)
    # A table of responses names its suite itself; the recipe's would only contradict it.
    suite = arguments.suite if responses else arguments.suite or recipe.suite
    ready = opened(config, model, suite=suite, responses=responses, labels=arguments.labels or None)
    if arguments.dry_run:
        show_evaluation(recipe.model_copy(update={"judge": ready.config.judge}), ready)
        return
    with display.live():
        if isinstance(ready.subject, Asked):
            display.start("responses", recipe.samples * len(ready.suite.items) * (2 if baseline else 1))
        _, evaluation = run_evaluation(ready, lambda count: display.advance("responses", count))
    measurement = evaluation.measurement
    columns, rows = axes_of(evaluation)
    if evaluation.untold:
        display.line(evaluation.untold)
    if rows and not evaluation.untold:  # the ends of the axes stand in the report: a terminal has no room for them
        shown = [place for place, column in enumerate(columns) if not column.endswith(" end")]
        cells = [[row[place] for place in shown] for row in rows]
        display.table("Axes of values", [columns[place] for place in shown], cells)
    columns, rows = evaluation_rows(evaluation)
    if measurement.rate(Label.UNSCORED) < 1:
        display.table(f"Stances of {responses or model}", columns, rows)
    if evaluation.compared and not evaluation.untold:
        for line in (measured_line(evaluation.drift), unscored_line(evaluation.drift, evaluation.measurements)):
            if line:
                display.line(line)
    if evaluation.distance is not None:
        display.line(sentence(evaluation.distance, evaluation.reference))
    with_labels = labels_section(evaluation)
    if with_labels is not None:
        title, columns, rows, line = with_labels
        display.table(title, columns, rows)
        display.line(line)
    metrics = evaluation.metrics
    refusals = {"neutral": "counted as neutral", "exclude": "left out"}[recipe.refusal]
    display.line(
        f"unscored {metrics['quality/unscored_rate']:.3f}, "
        f"refusals {metrics['quality/refusal_rate']:.3f} ({refusals}), judge {measurement.judge}"
    )
    if evaluation.trust is not None:
        show_trust(evaluation.trust, display)
        worth = evaluation.trust.worth(float(evaluation.drift.overall[-1])) if evaluation.compared else ""
        if worth:
            display.line(worth)
    if measurement.panel is not None:
        display.line(f"agreement of the judges (Krippendorff's alpha) {measurement.panel.alpha:.3f}")
    if "cost/judge_calls" in metrics:
        display.line(
            f"verdicts: {metrics['cost/judge_calls']:.0f} calls, {metrics['cost/judge_tokens']:.0f} tokens, "
            f"{metrics['cost/judge_cache_hits']:.0f} from the cache"
        )
    display.line(how_to_open())


def recipe_of(own: Command, arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command is run with; that of ``ablate`` is made for its design."""
    from valuedrift_mlflow.recipe.read import load_recipe

    if own.name == "main" and arguments.register:
        return load_recipe(arguments.recipe, f"{arguments.set} register={arguments.register}")
    if own.name != "ablate":
        return load_recipe(arguments.recipe, arguments.set)
    return designed(own, arguments)[0][0]


def show_evaluation(recipe: Recipe, ready: Opened) -> None:
    """Print what an evaluation would do."""
    from valuedrift_mlflow.evaluation.certainty import expected_line
    from valuedrift_mlflow.evaluation.labels import HumanLabels
    from valuedrift_mlflow.evaluation.subjects import Asked
    from valuedrift_mlflow.pipeline import dry_run
    from valuedrift_mlflow.report.display import Display

    display = Display()
    display.line("Dry run of evaluate: nothing was computed")
    sides = [ready.subject] if ready.baseline is None else [ready.subject, ready.baseline]
    for side in sides:
        if isinstance(side, Asked):
            for line in dry_run.evaluation_lines(recipe, side.uri, ready.suite):
                display.line(line)
        elif side is ready.baseline:
            display.line(f"{side.uri}: a table of responses")
        else:
            count = sum(len(said) for said in side.by_step.values())
            display.line(f"{side.uri}: {count:,} responses to {ready.suite.identity}, judged by {recipe.judge}")
    if ready.checkpoints:
        display.line(expected_line(ready.suite, ready.samples, ready.checkpoints, recipe.interval))
    if ready.reference is not None:
        display.line(ready.reference.said)
    if isinstance(ready.labels, HumanLabels):
        display.line(f"{ready.labels.uri}: {ready.labels.count} labels, {ready.labels.empty} rows without one")
    elif ready.labels is not None:
        display.line(f"{ready.labels.uri}: the judge's errors on {ready.labels.counts.sum()} labelled answers")


def audit_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``audit``: the stances and the value gap of the recipe's data."""
    from valuedrift_mlflow.data import shown
    from valuedrift_mlflow.report.display import Display, quiet_libraries
    from valuedrift_mlflow.value_gap import audit
    from valuedrift_mlflow.value_gap.discovered import discover

    stages = [(stage.data, stage.trained_turns if stage.kind == "sft" else "all") for stage in recipe.stages]
    # Stages that learn the same from the same data are audited once.
    sources = list({f"{turns} {data.model_dump_json()}": (data, turns) for data, turns in stages}.values())
    if arguments.data:
        if len(sources) != 1:
            found = f"{len(sources)} datasets in the recipe {arguments.recipe}"
            raise InputError(problem("data", found, "a recipe of one stage, where data is given"))
        sources[0][0].uri = arguments.data
    if not sources:
        raise InputError(problem("recipe.stages", "none", "at least one stage with data"))
    embedder = arguments.embedder or recipe.embedder or ""
    wanted = _discovery_output(arguments, len(sources), recipe)
    judge, given = arguments.judge or recipe.judge, {"labels": arguments.labels, "engine": arguments.engine}
    if arguments.labels and len(sources) != 1:
        raise InputError(problem("labels", f"{len(sources)} datasets in the recipe", "one dataset", "name one as data"))
    prepared = [audit.prepare(data, judge, recipe.suite, embedder, turns=turns, **given) for data, turns in sources]
    display = Display()
    if arguments.dry_run:
        for one in prepared:
            display.line(
                f"Dry run of audit: {one.judge.name} would judge the rows of {one.data.uri} ({one.data.format}) that "
                f"touch one of {len(one.matcher.propositions)} propositions of {one.suite.source}; nothing was computed"
            )
            if one.labels is not None:
                display.line(f"{one.labels.uri}: people's labels of {len(one.labels.by_row)} of these rows")
            for number, row in enumerate(audit.first_rows(one, _FIRST), 1):
                for text in shown.seen(row):
                    display.line(f"  row {number}, {text}")
        return
    quiet_libraries()
    for one in prepared:
        with display.live():
            display.start("rows", None)
            result = audit.run(one, seed=recipe.seed, progress=lambda count: display.advance("rows", count))
        show_audit(result, display)
        if wanted is not None:
            with display.live():
                display.start("topics", None, "topics of the data")
                discovered = discover(
                    one,
                    wanted,
                    model=arguments.model,
                    how=recipe.how,
                    seed=recipe.seed,
                    progress=lambda count: display.advance("topics", count),
                )
            show_discovery(discovered, display)
    display.line(how_to_open())


def _discovery_output(arguments: argparse.Namespace, sources: int, recipe: Recipe) -> Path | None:
    """The file for the topics that are to be discovered; None where none are.

    Raises:
        InputError: topics that are not known, a file or model that cannot be used, several datasets.
    """
    from valuedrift_mlflow import models
    from valuedrift_mlflow.value_gap import audit, discovery

    if arguments.topics not in ("", audit.DISCOVER):
        mend = 'a part of the suite is taken by --set "suite=vaes?topics=a,b"'
        raise InputError(problem("topics", arguments.topics, audit.DISCOVER, mend))
    given = [name for name in ("output", "model") if getattr(arguments, name)]
    if not arguments.topics:
        if given:
            found = ", ".join(given)
            raise InputError(problem("topics", "nothing", audit.DISCOVER, f"{found} belongs to topics=discover alone"))
        return None
    if sources > 1:
        raise InputError(
            problem("topics", audit.DISCOVER, f"one dataset; the recipe has {sources}", "name one as data")
        )
    output = output_path(arguments.output or "topics.csv")
    discovery.check_output(output)
    if arguments.model:
        models.check_model(arguments.model, "model", recipe.how)
    return output


def synthesize_job(own: Command, recipe: Recipe, arguments: argparse.Namespace) -> None:
    """The job of the entry point ``synthesize``: a dataset at a requested value gap or with a requested mix."""
    from valuedrift_mlflow.report.display import Display, quiet_libraries
    from valuedrift_mlflow.value_gap import synthesis
    from valuedrift_mlflow.value_gap.synthesis_request import Request, prepare

    options = recipe.model_dump(
        include={"suite", "judge", "seed", "temperature", "max_new_tokens", "allow_pyfunc_code"}
    )
    options |= {"model": recipe.base.model}
    options |= {"batch_size": recipe.generation_batch_size} if recipe.generation_batch_size else {}
    # After the recipe's: flags win.
    options |= {name: getattr(arguments, name) for name in own.flags if getattr(arguments, name)}
    prepared = prepare(Request.checked(options))
    display = Display()
    if arguments.dry_run:
        for line in synthesis.plan_lines(prepared):
            display.line(line)
        return
    quiet_libraries()
    with display.live():
        made = synthesis.run(prepared, display)
    columns, rows = synthesis.summary(made)
    display.table(f"{len(made.rows):,} rows in {made.file}", columns, rows)
    if made.about["partial"]:
        display.line(f"{made.about['partial']} Give the same command with more tries for the rest")
    display.line(f"The dataset card: {made.card}")
    display.line(how_to_open())


Job = Callable[[Command, Recipe, argparse.Namespace], None]
JOBS: dict[str, Job] = {
    job.__name__: job
    for job in (
        main_job,
        stage_job,
        ablate_job,
        evaluate_job,
        compare_job,
        gate_job,
        review_job,
        replay_job,
        check_judge_job,
        train_judge_job,
        log_judge_job,
        audit_job,
        attribute_job,
        synthesize_job,
    )
}
