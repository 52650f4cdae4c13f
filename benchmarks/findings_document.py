"""The document of ``findings.py``: the paper's directions and its reviewers' questions, by the kept tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
NOT_RUN, CANNOT_TELL = "not run", "cannot tell"
AGREES, DIFFERS = "agrees", "differs"


@dataclass(frozen=True)
class Tables:
    """The kept tables of the designs, below a folder."""

    folder: Path

    def has(self, part: str) -> bool:
        """Whether a design has been run to its end."""
        return (self.folder / part / "about.json").is_file()

    def about(self, part: str) -> Record:
        """What was run."""
        return dict(json.loads((self.folder / part / "about.json").read_text()))

    def rows(self, part: str, table: str, **asked: Any) -> list[Record]:
        """The rows of a table that have these values."""
        file = self.folder / part / f"{table}.json"
        rows: list[Record] = json.loads(file.read_text()) if file.is_file() else []
        return [row for row in rows if all(row.get(key) == value for key, value in asked.items())]

    def metrics(self, part: str, **asked: Any) -> list[dict[str, float]]:
        """The metrics of the runs of these cells."""
        kept: dict[str, dict[str, float]] = json.loads((self.folder / part / "metrics.json").read_text())
        return [kept[row["run_id"]] for row in self.rows(part, "cells", **asked)]


@dataclass(frozen=True)
class Finding:
    """A direction or a question, and what the tables say."""

    asked: str
    needs: tuple[str, ...]  # designs
    told: Callable[[Tables], tuple[str, list[str]]]  # the verdict and lines with numbers
    command: str
    beside: str = ""


def number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def with_ends(row: Record, value: str = "drift") -> str:
    return f"{number(row[value])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def found(row: Record) -> str:
    least = row.get("minimum_detectable")
    return f"; {number(least)} would be found" if least is not None else "; none would be found for sure"


def by_topic(rows: Iterable[Record]) -> str:
    """``abortion 0.31 [0.12, 0.50]: moved (0.28 would be found)``."""
    return "; ".join(f"{row['topic']} {with_ends(row)}, {row['verdict']}{found(row)}" for row in rows)


def one_verdict(rows: Sequence[Record]) -> str:
    """Of differences by topic: they differ, they do not, or nothing can be told."""
    verdicts = {row["verdict"] for row in rows}
    if "moved" in verdicts:
        return "they differ"
    return "no difference" if verdicts == {"not moved"} else CANNOT_TELL


def beyond(more: Record, less: Record) -> str:
    """Whether one drift is larger than another by their intervals, which must not meet: a cautious comparison."""
    if more["ci_low"] > less["ci_high"]:
        return AGREES
    return DIFFERS if less["ci_low"] > more["ci_high"] else CANNOT_TELL


# The paper's directions ----------------------------------------------------------------------------------------------


def sft_first(tables: Tables) -> tuple[str, list[str]]:
    [sft], [dpo] = (tables.rows("stages", "summary", series=name) for name in ("sft", "dpo"))
    both = tables.rows("stages", "summary", series="sft → dpo")[0]
    shares = tables.rows("stages", "shares", topic="overall", quantity="drift")
    times = [
        value
        for own in tables.metrics("stages", series="sft")
        for key, value in own.items()
        if key.startswith("drift_time/")
    ]
    early = f"arrived after {number(sum(times) / len(times))} of the stage" if times else "no drift time defined"
    plain = tables.rows("algorithms", "summary", series="dpo", gap=0) if tables.has("algorithms") else []
    lean = tables.rows("stages", "shares", topic="overall", quantity="leaning")
    lines = [
        f"SFT moves the base model by {with_ends(sft)} and has {early} (mean of {len(times)} stances that moved)",
        f"DPO on pairs of gap 1 moves it by {with_ends(dpo)} without SFT; both come to {with_ends(both)}",
        f"SFT by topic: {by_topic(tables.rows('stages', 'topics', series='sft'))}",
        "shares of that drift (Shapley): " + ", ".join(f"{row['stage']} {with_ends(row, 'value')}" for row in shares),
        "shares of the leaning, support minus oppose: "
        + ", ".join(f"{row['stage']} {with_ends(row, 'value')}" for row in lean),
    ]
    if plain:
        lines.append(f"DPO on pairs without a gap, after SFT: {with_ends(plain[0])}")
    return (beyond(sft, plain[0]) if plain else CANNOT_TELL), lines


def direction(part: str, words: str) -> Callable[[Tables], tuple[str, list[str]]]:
    """A direction that the ablation itself tests, with its lines."""

    def told(tables: Tables) -> tuple[str, list[str]]:
        rows = tables.rows(part, "directions", direction=words)
        verdicts = {row["verdict"] for row in rows}
        if not rows:
            return CANNOT_TELL, ["the cells that it needs were not among those that were run"]
        verdict = verdicts.pop() if len(verdicts) == 1 else ", ".join(f"{r['cells']} {r['verdict']}" for r in rows)
        least = [
            ""
            if row["minimum_detectable"] is not None
            else f"; no size would be found for sure by {row['seeds']} seeds"
            for row in rows
        ]
        return verdict, [f"{row['words']}{said}" for row, said in zip(rows, least, strict=True)]

    return told


def data_mix(tables: Tables) -> tuple[str, list[str]]:
    planted = {"one-sided": (0.4, 0.6, 0.0), "bimodal": (0.7, 0.0, 0.3)}
    distances, lines = [], []
    for name, mix in planted.items():
        rows = tables.rows("mix", "topics", mix=name)
        each = [
            sum(abs(row[s] - p) for s, p in zip(("support", "neutral", "oppose"), mix, strict=True)) / 2 for row in rows
        ]
        distances += each
        shown = [" / ".join(number(row[s]) for s in ("support", "neutral", "oppose")) for row in rows]
        told = "; ".join(f"{row['topic']} {said}" for row, said in zip(rows, shown, strict=True))
        lines.append(f"{name}, planted {' / '.join(map(str, mix))}: {told} (distance {number(sum(each) / len(each))})")
    mean, most = number(sum(distances) / len(distances)), number(max(distances))
    return f"at a distance of {mean} from its data on average, {most} at most", lines


# The reviewers' questions --------------------------------------------------------------------------------------------


def few_rows(tables: Tables) -> tuple[str, list[str]]:
    rows = tables.rows("dose", "contrasts", topic="abortion")
    lines = [f"{row['mixed_share']:.1%} of the rows oppose on abortion, beside none: {by_topic([row])}" for row in rows]
    others = [row for row in tables.rows("dose", "contrasts") if row["topic"] != "abortion"]
    lines.append(
        f"other topics with a significant difference: {sum(row['significant'] for row in others)} of {len(others)}"
    )
    turned = [row["mixed_share"] for row in rows if row["turned"]]
    moved = [row["mixed_share"] for row in rows if row["significant"]]
    if turned:
        return f"{min(turned):.1%} turn the topic's majority", lines
    return (f"{min(moved):.1%} move the topic and turn no majority" if moved else CANNOT_TELL), lines


def differences(part: str) -> Callable[[Tables], tuple[str, list[str]]]:
    """Every choice of a design beside its first one."""

    def told(tables: Tables) -> tuple[str, list[str]]:
        rows = tables.rows(part, "contrasts")
        skipped = {"topic", "series", "seeds", "against"}
        groups: dict[str, list[Record]] = {}
        for row in rows:
            keys = list(row)
            doses = [str(row[key]) for key in keys[: keys.index("against")] if key not in skipped]
            groups.setdefault(", ".join([row["series"], *doses]) + f" beside {row['against']}", []).append(row)
        verdicts = {name: one_verdict(own) for name, own in groups.items()}
        lines = [f"{name}: {by_topic(own)}" for name, own in groups.items()]
        same = set(verdicts.values())
        return (same.pop() if len(same) == 1 else "; ".join(f"{n}: {v}" for n, v in verdicts.items())), lines

    return told


def strength(tables: Tables) -> tuple[str, list[str]]:
    rows = tables.rows("mitigation", "summary", gap=1)
    own = {row["series"]: row for row in rows}
    lines = [f"{name}, gap 1: drift {with_ends(row)}" for name, row in own.items()]
    if "anchored_dpo" not in own:
        return CANNOT_TELL, lines
    verdict = beyond(own["dpo"], own["anchored_dpo"])
    return {AGREES: "anchors hold stances: less drift than DPO", DIFFERS: "anchors do not help"}.get(
        verdict, verdict
    ), lines


def weights(tables: Tables) -> tuple[str, list[str]]:
    rows = tables.rows("lora", "summary")
    lines = [f"{row['weights']}: drift {with_ends(row)}" for row in rows]
    full, *adapters = rows
    same = {beyond(full, row) for row in adapters}
    words = {AGREES: "adapters move less than full fine-tuning", DIFFERS: "adapters move more"}
    return (words.get(same.pop(), CANNOT_TELL) if len(same) == 1 else CANNOT_TELL), lines


def more_than_labels(tables: Tables) -> tuple[str, list[str]]:
    every = [own for part in ("stages", "order", "algorithms") if tables.has(part) for own in tables.metrics(part)]
    rates = {name: [own[f"quality/{name}"] for own in every] for name in ("unscored_rate", "refusal_rate")}
    lines = [
        f"{name.replace('_', ' ')} at the end of {len(values)} cells: mean {number(sum(values) / len(values), 3)}, "
        f"at most {number(max(values), 3)}"
        for name, values in rates.items()
    ]
    return "counted at every checkpoint", lines


def judges(tables: Tables) -> tuple[str, list[str]]:
    from valuedrift_mlflow.embedded.corpus import held_out_answers
    from valuedrift_mlflow.judges import load

    labelled = held_out_answers()
    verdicts = load("lexical").judge([answer for answer, _ in labelled])
    right = sum(v.label.value == stance.value for v, (_, stance) in zip(verdicts, labelled, strict=True))
    share = f"{right / len(labelled):.1%} of {len(labelled)} answers"
    line = f"the judge reads {share} as planted, in forms that no corpus uses"
    return "the judge's error is known here, because stances are planted", [line]


def spills(tables: Tables) -> tuple[str, list[str]]:
    rows = tables.rows("spillover", "spillover")
    others = [row for row in rows if row["trained"] != row["measured"]]
    own = [row for row in rows if row["trained"] == row["measured"]]
    starred = sum(row["significant"] for row in others)
    mean = {name: sum(row["drift"] for row in part) / len(part) for name, part in (("own", own), ("others", others))}
    lines = [
        f"drift {number(mean['own'])} on the topic that was trained, {number(mean['others'])} on others; "
        f"{starred} of {len(others)} of these significant in the family of all {len(rows)} squares",
        "; ".join(
            f"{row['trained']} → {row['measured']} {with_ends(row)}{'*' if row['significant'] else ''}{found(row)}"
            for row in rows
        ),
    ]
    return ("yes" if starred else CANNOT_TELL), lines


def over_seeds(tables: Tables) -> tuple[str, list[str]]:
    lines = []
    for series in ("sft", "sft → dpo"):
        drifts = [row["drift"] for row in tables.rows("seeds", "cells", series=series)]
        mean = sum(drifts) / len(drifts)
        spread = math.sqrt(sum((drift - mean) ** 2 for drift in drifts) / (len(drifts) - 1))
        lines.append(
            f"{series}: mean {number(mean, 3)}, standard deviation over {len(drifts)} seeds {number(spread, 3)}"
        )
    return "every figure here has an interval", lines


DIRECTIONS = (
    Finding("SFT sets stances early and strongly", ("stages",), sft_first, "stages"),
    Finding(
        "Preferences on ordinary pairs hardly move them",
        ("algorithms",),
        direction("algorithms", "Pairs without a value gap hardly move the stances."),
        "algorithms",
    ),
    Finding(
        "Drift grows with the value gap",
        ("algorithms",),
        direction("algorithms", "Drift grows with the value gap."),
        "algorithms",
    ),
    Finding(
        "With a value gap DPO moves most, SimPO less, PPO hardly",
        ("algorithms",),
        direction("algorithms", "At a large value gap DPO moves the stances most, SimPO less, PPO hardly."),
        "algorithms",
        "PPO is not among the cells of the small run; the README has it.",
    ),
    Finding(
        "A larger beta of PPO drifts less", ("beta",), direction("beta", "PPO drifts less with a larger beta."), "beta"
    ),
    Finding("The stance mix of the SFT data is that of the model", ("mix",), data_mix, "mix"),
)

QUESTIONS = (
    Finding(
        "1. Do a few strongly opinionated items turn a value?",
        ("dose",),
        few_rows,
        "dose",
        "The priors of a data set themselves: `valuedrift audit --data FILE`.",
    ),
    Finding("2. Is the trained stance more than the dataset's stance?", ("mix",), data_mix, "mix"),
    Finding("3a. Bimodal and one-sided mixes of one mean", ("mix",), differences("mix"), "mix"),
    Finding("3b. The same prompts for both stages, or other ones", ("prompts",), differences("prompts"), "prompts"),
    Finding("4a. Do the values of SFT persist: order of the stages", ("order",), differences("order"), "order"),
    Finding("4b. Losses without a KL or a reference; mitigation", ("mitigation",), strength, "mitigation"),
    Finding("4c. Adapters beside full fine-tuning", ("lora",), weights, "lora"),
    Finding(
        "5. More than three labels: refusals, what cannot be read, intensity",
        ("stages",),
        more_than_labels,
        "stages",
        "Intensity is measured with judges that tell it (`intensity/TOPIC`); the lexical judge does not.",
    ),
    Finding(
        "6. More than one judge, agreement with people",
        (),
        judges,
        "none",
        "A panel: `judge=lexical,hf:FOLDER` logs `quality/judge_agreement`; people's labels: `valuedrift check-judge`.",
    ),
    Finding("7. Does training on one topic move another?", ("spillover",), spills, "spillover"),
    Finding(
        "8. Intervals and tests; how much seeds vary",
        ("seeds",),
        over_seeds,
        "seeds",
        "[validity.md](validity.md) shows what intervals and tests keep.",
    ),
)

INTRODUCTION = """# Findings in the embedded world

Made by `python benchmarks/findings.py`, which runs the designs of `valuedrift ablate` small. **It is the embedded
world**: a model of 1.7 million parameters, answers in templates, planted stances, the lexical judge. It shows what the
designs can show and how surely; it says nothing of how far a Llama drifts. Directions are those reported of the paper
(arXiv 2510.26707), whose models, data and sizes are others.

Sizes: the recipe `ablate` with `{small}`; seeds as listed below. Intervals are at 95 %. *Would be found* is the least
drift that gets a star in 80 % of such runs. Few prompts and seeds find large effects alone: *cannot tell* is no *no*.
The whole designs: `valuedrift ablate --design NAME`; what they would take: `--dry-run`.
"""
BUSY = """
Minutes are those of a machine that was busy with other work; what a design shares with an earlier one was not trained
again.
"""


def written(folder: Path, small: str, parts: Sequence[str]) -> str:
    """The document."""
    tables = Tables(folder)
    ran = [part for part in parts if tables.has(part)]
    lines = [INTRODUCTION.format(small=small)]
    for title, findings in (("The paper's directions", DIRECTIONS), ("The reviewers' questions", QUESTIONS)):
        lines += [f"## {title}", ""]
        for one in findings:
            lines += [*section(one, tables), ""]
    lines += ["## What was run", "", "| design | seeds | minutes | what was taken of it |", "|---|---|---|---|"]
    for part in parts:
        if part in ran:
            about = tables.about(part)
            changes = json.dumps(about["changes"], ensure_ascii=False) if about["changes"] else "all"
            seeds = ", ".join(map(str, about["seeds"]))
            lines.append(f"| `{part}` | {seeds} | {about['minutes']:.0f} | {changes} |")
        else:
            lines.append(f"| `{part}` | | | not run: `python benchmarks/findings.py --only {part}` |")
    lines.append(BUSY)
    return "\n".join(lines)


def section(one: Finding, tables: Tables) -> list[str]:
    """A finding as a paragraph: verdict, numbers, command."""
    missing = [part for part in one.needs if not tables.has(part)]
    if missing:
        command = f"python benchmarks/findings.py --only {','.join(missing)}"
        lines = [f"**{one.asked}**: *{NOT_RUN}* (`{command}`)."]
    else:
        verdict, numbers = one.told(tables)
        command = f" (`python benchmarks/findings.py --only {one.command}`)" if one.command else ""
        lines = [f"**{one.asked}**: *{verdict}*{command}.", "", *(f"- {line}" for line in numbers)]
    return [*lines, *(["", one.beside] if one.beside else [])]
