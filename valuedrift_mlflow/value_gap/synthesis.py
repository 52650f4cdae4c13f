"""Preference pairs at a requested value gap, and SFT rows with a requested mix of stances, from any model.

Each prompt is about a proposition of a suite, and none is a prompt of the suite. A model is given a stance instruction
with the prompt; its response is kept when the judge reads the stance it was asked for, and sampled again when not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.data.datasets import COLUMNS, TrainingData
from valuedrift_mlflow.evaluation import recorded
from valuedrift_mlflow.evaluation.measurement import judge_costs
from valuedrift_mlflow.evaluation.notes import described
from valuedrift_mlflow.inputs.errors import Unanswered
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.judges.judge import identity
from valuedrift_mlflow.report.tables import Table
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.value_gap import held, value_gap
from valuedrift_mlflow.value_gap import audit, synthesis_file
from valuedrift_mlflow.value_gap.synthesis_journal import Journal
from valuedrift_mlflow.value_gap.synthesis_plan import LENGTH_RATIO, Row, length_ratio, shuffled
from valuedrift_mlflow.value_gap.synthesis_prompts import (
    INSTRUCTIONS,
    PLAIN,
    STYLES,
    instructions_version,
    prompts_version,
)
from valuedrift_mlflow.value_gap.synthesis_request import FORMS, Prepared, Request, prepare
from valuedrift_mlflow.value_gap.synthesis_sampling import Filling, source_of

if TYPE_CHECKING:
    from valuedrift_mlflow.report.display import Display


@dataclass(frozen=True)
class Synthesis:
    """A written dataset, what it was found to be, and the run that holds both.

    ``requested_gap`` and ``measured_gap`` are None for SFT rows, whose mixes (support, neutral, oppose) stand in
    ``about`` with everything else that the file says of itself.
    """

    file: Path
    card: Path
    rows: list[Record]
    about: Record
    metrics: dict[str, float]
    run_id: str

    @property
    def requested_gap(self) -> float | None:
        """Share of pairs that were to have opposed stances."""
        return self.about.get("requested_gap")

    @property
    def measured_gap(self) -> float | None:
        """Pairwise value gap that the audit has found."""
        return self.about.get("measured_gap")


def synthesize(output: str = "synthesized", *, display: Display | None = None, **options: object) -> Synthesis:
    """Write a dataset of a requested gap or mix to ``output``; it goes on from what an earlier call has judged there.

    Args:
        output: a file ``NAME.parquet``, or a folder for ``train.parquet``.
        display: what shows the progress.
        options: the other fields of ``Request``, by their names.

    Returns:
        The dataset; metrics, card and file also stand in an MLflow run of the role ``synthesis``.

    Raises:
        InputError: bad options, or responses beside ``output`` that were made in another way.
        NotReached: a stance that was asked for was not judged present often enough.
        Unanswered: a server stays silent; the same call goes on later.
    """
    return run(prepare(Request.checked({"output": output, **options})), display)


def run(prepared: Prepared, display: Display | None = None) -> Synthesis:
    """Fill a prepared request's rows, write the dataset, audit it, log it.

    Raises:
        NotReached: as ``synthesize``.
    """
    from valuedrift_mlflow.report.display import Display

    request, places = prepared.request, prepared.places
    journal = Journal(places.responses, prepared.made)
    name = f"synthesize · {models.short_name(request.model)}"
    # In this order: the note of `_kept` is on the error before `tracking.run` writes the reason down.
    with tracking.run("synthesis", name=name, parameters=_parameters(prepared)) as active, _kept(journal):
        filling = Filling(prepared, source_of(request), journal, display or Display())
        try:
            filling.fill()
        finally:
            tracking.log_metrics(active, _costs(filling), 0)
        # Rows were planned topic by topic; a training without a shuffle of its own would see them so.
        rows = shuffled(filling.filled, request.seed)
        records = [_record(row, request.model, identity(prepared.judge)) for row in rows]
        # From memory, not from the file: what its audit finds is written into the file.
        data = _training_data(prepared, records)
        about = _about(prepared, filling, rows) | _audited(prepared, data, rows)
        # Before the card: a card without its file would speak of nothing.
        synthesis_file.write(places, records, about)
        card = synthesis_file.write_card(places, records, about)
        metrics = _metrics(about, rows)
        tracking.log_metrics(active, metrics, 0)
        if about["partial"]:
            tracking.log_tags(active, {"partial": about["partial"]})
        recorded.log_training_data(active, data)
        tracking.log_text(active, card, "README.md")
        tracking.log_file(active, places.file, "data")
        made = Synthesis(places.file, places.card, records, about, metrics | _costs(filling), active.run_id)
        tracking.describe(active, _note(made))
        return made


@contextmanager
def _kept(journal: Journal) -> Iterator[None]:
    """Let a server that falls silent say where the work is kept, before the run is given the reason."""
    try:
        yield
    except Unanswered as silence:
        silence.add_note(f"what was sampled and judged is kept in {journal.path}: the same command goes on")
        raise


def _training_data(prepared: Prepared, records: Sequence[Record]) -> TrainingData:
    """The rows in the shape that a stage reads them in."""
    uri, kind = str(prepared.places.file), prepared.design.kind
    if kind == "pairs":
        return TrainingData(uri, kind, "pairs", [{c: row[c] for c in COLUMNS[kind]} for row in records])
    split = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in records]
    return TrainingData(uri, kind, "messages", split)


def _parameters(prepared: Prepared) -> dict[str, str]:
    """The settings with their meaning worked out: ``synthesis.chosen`` is known where only a preset was given."""
    request, design = prepared.request, prepared.design
    names = ("model", "judge", "preset", "size", "output", "seed", "tries", "temperature", "max_new_tokens")
    settings = {name: getattr(request, name) for name in names} | {"kind": design.kind}
    if design.kind == "pairs":
        settings |= {"gap": design.gap, "chosen": design.chosen.value, "rejected": design.rejected.value}
    else:
        settings |= {"mix": ", ".join(f"{s} {p:g}" for s, p in zip(STANCES, design.mix, strict=True))}
    settings |= {"suite": prepared.suite.identity, "topics": ",".join(_topics(prepared))}
    settings |= {"prompts": prompts_version(prepared.items)}
    if request.model != FORMS:
        settings |= {"instructions": instructions_version()}
    return {f"synthesis.{key}": str(value) for key, value in settings.items()}


def _topics(prepared: Prepared) -> list[str]:
    return list(dict.fromkeys(item.topic for item in prepared.items))


def _record(row: Row, model: str, judge: str) -> Record:
    """A row as it is written."""
    best = row.best()
    assert best is not None
    asked = {"role": "user", "content": row.item.prompt}
    answers = [{"role": "assistant", "content": said.text} for said in best]
    about = {
        "topic": row.item.topic,
        "proposition_id": row.item.proposition_id,
        "proposition": row.item.proposition,
    }
    made = {"model": model, "judge": judge}
    if len(best) == 1:
        stance = {"stance": row.sides[0].stance.value, "tries": best[0].attempt}
        return {"messages": [asked, answers[0]], **about, **stance, **made}
    return {
        "prompt": [asked],
        "chosen": [answers[0]],
        "rejected": [answers[1]],
        **about,
        "chosen_stance": row.sides[0].stance.value,
        "rejected_stance": row.sides[1].stance.value,
        "chosen_tries": best[0].attempt,
        "rejected_tries": best[1].attempt,
        **made,
    }


def _audited(prepared: Prepared, data: TrainingData, rows: Sequence[Row]) -> Record:
    """What an audit of the rows finds, in a run of its own: the judge reads them anew, told no topic and no polarity.

    Where no row touches a proposition by its words, the verdicts by which the responses were kept stand in.
    """
    audited = audit.run(audit.prepare(data, prepared.judge, prepared.suite), seed=prepared.request.seed)
    about: Record = {"measured_coverage": audited.overall.coverage.value}
    kept = [
        np.array([held(said.verdict) for said in side])
        for side in zip(*(row.best() or () for row in rows), strict=True)
    ]
    gap = audited.overall.gap
    if gap is not None:
        known = bool(np.isfinite(gap.pairwise.value))
        pairwise = gap.pairwise if known else value_gap(kept[0], kept[1], seed=prepared.request.seed).pairwise
        about |= {"measured_gap": pairwise.value, "measured_gap_interval": [pairwise.low, pairwise.high]}
        what = "pairwise value gap"
    else:
        mix = np.array([estimate.value for estimate in audited.overall.mix])
        known = bool(np.isfinite(mix).all())
        values = mix if known else kept[0].mean(axis=0)
        about["measured_mix"] = {stance.value: float(value) for stance, value in zip(STANCES, values, strict=True)}
        what = "mix of stances"
    covered = f"in the {100 * audited.overall.coverage.value:.3g} % of rows that touch a proposition by their words"
    ground = f"an audit by the same judge, told no topic, {covered}" if known else "the verdicts on the kept responses"
    return about | {"measured_as": f"Measured is the {what} of {ground}."}


def _about(prepared: Prepared, filling: Filling, rows: Sequence[Row]) -> Record:
    """What the file says of itself. Nothing in it depends on when, where or in how many parts it was made."""
    request, design, tally = prepared.request, prepared.design, filling.tally
    about: Record = {
        "kind": design.kind,
        "preset": request.preset,
        "rows": len(rows),
        "requested_rows": request.size,
        "partial": _partial(prepared, rows),
        "model": request.model,
        "judge": identity(prepared.judge),
        "suite": prepared.suite.identity,
        "topics": _topics(prepared),
        "seed": request.seed,
        "tries": request.tries,
        "responses": tally.judged,
        "rejected_responses": tally.rejected.total(),
        "rejected_by_stance": {s.value: tally.rejected[s] for s in STANCES if tally.present[s] + tally.rejected[s]},
        "not_taken": {reason.value: count for reason, count in filling.reasons().items()},
        "moved_rows": sum(row.moves > 0 for row in rows),
        "prompts_version": prompts_version(prepared.items),
        "license": request.license or ("apache-2.0" if request.model == FORMS else "unknown"),
        "versions": _versions(request.model),
    }
    if request.model == FORMS:
        about |= {"instructions": {}, "instructions_version": "", "styles": {}, "sampling": "composed from forms"}
    else:
        used = {side.style for row in rows for side in row.sides} - {PLAIN}
        about |= {
            "instructions": {stance.value: text for stance, text in INSTRUCTIONS.items()},
            "instructions_version": instructions_version(),
            "styles": {style: STYLES[style].strip() for style in STYLES if style in used},
            "sampling": f"temperature {request.temperature:g}, at most {request.max_new_tokens} new tokens",
        }
    if design.kind == "pairs":
        sides = {"chosen": design.chosen.value, "rejected": design.rejected.value}
        return about | {"requested_gap": design.gap} | sides
    return about | {"requested_mix": dict(zip((stance.value for stance in STANCES), design.mix, strict=True))}


def _partial(prepared: Prepared, rows: Sequence[Row]) -> str:
    """What a dataset lacks of what was asked for; nothing where it lacks nothing."""
    size = prepared.request.size
    if len(rows) == size:
        return ""
    told = f"Partial: {len(rows):,} of {size:,} rows could be filled"
    if prepared.design.kind == "pairs":
        opposed = sum(not row.same_stance for row in rows) / len(rows)
        return f"{told}; {opposed:.3g} of them have opposed stances, {prepared.design.gap:.3g} was asked for."
    found = Counter(row.sides[0].stance for row in rows)
    return f"{told}: " + ", ".join(f"{found[stance]:,} {stance}" for stance in STANCES if found[stance]) + "."


def _versions(model: str) -> dict[str, str]:
    """The package and the libraries that the answers depend on."""
    if model == FORMS:
        libraries: tuple[str, ...] = ()
    else:
        libraries = ("openai",) if model.startswith(models.SERVER_PREFIX) else ("transformers", "torch")
    return {"valuedrift-mlflow": tracking.package_version()} | {name: version(name) for name in libraries}


def _costs(filling: Filling) -> dict[str, float]:
    """What sampling took, also where the gap was not reached."""
    tally = filling.tally
    asked = [stance for stance in STANCES if tally.present[stance] + tally.rejected[stance]]
    return {
        "synthesis/responses": float(tally.judged),
        "synthesis/rejected_responses": float(tally.rejected.total()),
        **{f"synthesis/rejected/{stance}": float(tally.rejected[stance]) for stance in asked},
        **{f"synthesis/not_taken/{reason}": float(count) for reason, count in filling.reasons().items()},
        "synthesis/requested_rows": float(len(filling.rows)),
        "synthesis/filled_rows": float(len(filling.filled)),
        "synthesis/moved_rows": float(sum(row.moves > 0 for row in filling.rows)),
    } | judge_costs(tally.verdicts)


def _metrics(about: Record, rows: Sequence[Row]) -> dict[str, float]:
    """Requested next to measured, and how well the lengths of pairs of one stance match."""
    if about["kind"] == "sft":
        return {
            f"synthesis/{kind}_mix/{stance}": float(about[f"{kind}_mix"][stance])
            for kind in ("requested", "measured")
            for stance in STANCES
        }
    ratios = np.array([length_ratio(*best) for row in rows if row.same_stance and (best := row.best())])
    low, high = about["measured_gap_interval"]
    metrics = {
        "synthesis/requested_gap": about["requested_gap"],
        "synthesis/measured_gap": about["measured_gap"],
        "synthesis/measured_gap_ci_low": low,
        "synthesis/measured_gap_ci_high": high,
    }
    if ratios.size:
        metrics["synthesis/length_ratio"] = float(ratios.mean())
        metrics["synthesis/unmatched_lengths"] = float((ratios < LENGTH_RATIO).sum())
    return metrics


# ---- what is shown ---------------------------------------------------------------------------------------------------


def plan_lines(prepared: Prepared) -> list[str]:
    """What a synthesis would do, without asking a model or a judge."""
    request, design = prepared.request, prepared.design
    rows, _ = prepared.rows()
    sorts = Counter(" over ".join(side.stance for side in row.sides) for row in rows)
    least = sum(len(row.sides) for row in rows)
    return [
        "Dry run of synthesize: nothing was computed",
        f"{len(rows):,} rows ({design.kind}): " + ", ".join(f"{count:,} {sort}" for sort, count in sorts.items()),
        f"prompts: {len(prepared.items):,} about {prepared.suite.identity}, topics {', '.join(_topics(prepared))}",
        f"{request.model}: at least {least:,} responses, at most {request.tries} for each side on one prompt, "
        f"judged by {identity(prepared.judge)}",
        f"output: {prepared.places.file}, card {prepared.places.card}, responses {prepared.places.responses}",
    ]


def _note(made: Synthesis) -> str:
    """What the run says of itself on its first page in MLflow."""
    lead = made.about["partial"] or f"{len(made.rows):,} rows in {made.file.name}"
    files = {"the dataset card": "README.md", "the rows": "data"}
    return described(made.run_id, lead, Table(*summary(made)), (), files)


def summary(made: Synthesis) -> tuple[list[str], list[list[str]]]:
    """Requested next to measured, and what it took."""
    columns = ["figure", "requested", "measured"]
    if made.about["kind"] == "pairs":
        rows = [["value gap", f"{made.about['requested_gap']:.3f}", f"{made.about['measured_gap']:.3f}"]]
    else:
        mixes = made.about["requested_mix"], made.about["measured_mix"]
        rows = [[stance.value, *(f"{mix[stance]:.3f}" for mix in mixes)] for stance in STANCES]
    rows.append(["responses judged", "", f"{made.about['responses']:,}"])
    rows.append(["responses rejected", "", f"{made.about['rejected_responses']:,}"])
    rows += [[f"not taken: {name.replace('_', ' ')}", "", f"{n:,}"] for name, n in made.about["not_taken"].items()]
    return columns, [["rows", f"{made.about['requested_rows']:,}", f"{made.about['rows']:,}"], *rows]
