"""How time and memory grow with prompts, samples, checkpoints, rows of an audit, and long rows.

python benchmarks/scaling.py                                  # an hour of CPU
python benchmarks/scaling.py --share 0.01                     # a hundredth of each largest size: minutes
python benchmarks/scaling.py --only checkpoints,long

Every point runs in a process of its own, because a process's peak of memory never falls. What is loaded once is loaded
before the clock starts. Printed are seconds of the processor, the rise of the peak, and by which power both grow: over
all points, and between the two largest, where fixed costs weigh least. Nothing should be above 1.

- prompts, samples: a function answers with texts of the embedded world, the offline judge reads them, two measurements
  are compared, the tables made. A model's own time is linear by itself and is left out.
- checkpoints: measurements of 550 prompts, analysed at the end with their tables, and ``in a training``: after each.
- rows: an audit of preference pairs of HH-RLHF (``--data``), on one core and on two; 160,000 of them are the goal's.
- long: an audit of pairs of one megabyte each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from audit import REAL
from audit import write as write_pairs
from processes import LINEAR, alone, exponents, fitted, pinned, say, taken

from valuedrift_mlflow.report.display import Display

SIZES = {
    "prompts": (550, 5_500, 55_000),
    "samples": (1, 10, 100),
    "checkpoints": (2, 20, 200),
    "checkpoints in a training": (2, 20, 200),
    "rows": (1_000, 10_000, 160_000, 1_000_000),
    "rows on one core": (1_000, 10_000, 160_000),
    "long": (8, 64, 512),
}
LEAST = {"prompts": 110, "rows": 500, "rows on one core": 500, "long": 4}
GOAL = 8_000  # pairs a second on two cores
_OF_ONE_PROPOSITION, _PROMPTS, _MEGABYTE = 5, 550, 1_000_000


def suite_of(prompts: int) -> Any:
    """A suite of so many prompts, five to a proposition, in the built-in suite's topics and words."""
    from valuedrift_mlflow import suite
    from valuedrift_mlflow.suite import Suite

    known = suite.load("vaes").items
    made = []
    for number in range(prompts):
        own, copy = known[number % len(known)], number // len(known)
        changed = {"item_id": f"{own.item_id}-{copy}", "proposition_id": f"{own.proposition_id}-{copy}"}
        # The prompts of a copy differ in a word, so that nothing is remembered from the first.
        made.append(replace(own, **changed, prompt=f"{own.prompt} ({copy})" if copy else own.prompt))
    return Suite("scaled", "1", tuple(made), "scaled")


def measured(prompts: int, samples: int) -> None:
    """Two measurements of a function that answers with texts of the embedded world, compared."""
    from valuedrift_mlflow import judges
    from valuedrift_mlflow.embedded.corpus import held_out_answers
    from valuedrift_mlflow.evaluation.measurement import measure
    from valuedrift_mlflow.evaluation.metrics import analyse_measurements, drift_table, responses_table
    from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling

    texts = [answer.response for answer, _ in held_out_answers(300)]
    draw, judge, asked = np.random.default_rng(0), judges.load("lexical"), suite_of(prompts)
    generator = FunctionGenerator(lambda some: [texts[place] for place in draw.integers(len(texts), size=len(some))])
    sampling = Sampling(samples, 1.0, 16, 64, 0)
    both = [measure(generator, asked, judge, sampling, step=step) for step in (0, 1)]
    drift_table(analyse_measurements(both), both)
    responses_table(both)


def courses(checkpoints: int, *, one_by_one: bool) -> None:
    """Measurements of 550 prompts with drawn verdicts, analysed at the end or after each."""
    from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement
    from valuedrift_mlflow.evaluation.metrics import analyse_measurements, drift_table, responses_table
    from valuedrift_mlflow.stances import Verdict
    from valuedrift_mlflow.statistics.family import Joined

    draw, asked = np.random.default_rng(0), suite_of(_PROMPTS)
    made, tested = [], Joined()
    for step in range(checkpoints):
        shares = draw.dirichlet((1, 1, 1), size=len(asked.items)).tolist()
        judged = tuple(
            JudgedResponse(item, 0, "said", Verdict.of(own)) for item, own in zip(asked.items, shares, strict=True)
        )
        made.append(Measurement(step, asked, "drawn", "neutral", judged, 0.0))
        if one_by_one:  # as the callback does
            analyse_measurements(made, earlier=tested, with_course=False)
    del tested
    drift_table(analyse_measurements(made), made)
    responses_table(made)


def audited(path: Path) -> int:
    """An audit with the offline judge; how many pairs it has read."""
    from valuedrift_mlflow.value_gap import audit

    prepared = audit.prepare(str(path), "lexical")
    return audit.examine(prepared.data, prepared.data.kind, prepared.judge, prepared.matcher).rows


def long_pairs(path: Path, rows: int) -> None:
    """Pairs of one megabyte each."""
    said = "People ask whether the death penalty should be abolished. I think that it should be, since it is cruel. "
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            side = f"Number {number}. " + said * (_MEGABYTE // (2 * len(said)))
            row = {"prompt": "Should the death penalty be abolished?", "chosen": side, "rejected": f"No. {side}"}
            file.write(json.dumps(row) + "\n")


def point(kind: str, size: int, data: Path) -> None:
    """In a process of its own: what one point takes."""
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="valuedrift-benchmark-") as scratch:
        path, small = Path(scratch, "pairs.jsonl"), Path(scratch, "small.jsonl")
        run: Callable[[], object]
        warm: Callable[[], object]
        if kind == "prompts":
            run, warm = lambda: measured(size, 1), lambda: measured(_PROMPTS // 5, 1)
        elif kind == "samples":
            run, warm = lambda: measured(_PROMPTS // 5, size), lambda: measured(_PROMPTS // 5, 1)
        elif kind.startswith("checkpoints"):
            each = kind != "checkpoints"
            run, warm = lambda: courses(size, one_by_one=each), lambda: courses(2, one_by_one=each)
        else:
            if kind == "long":
                long_pairs(path, size)
                long_pairs(small, 1)
            else:
                path, small = path.with_suffix(".jsonl.gz"), small.with_suffix(".jsonl.gz")
                write_pairs(path, data, size)
                write_pairs(small, data, 200)
            run, warm = lambda: audited(path), lambda: audited(small)
        warm()
        with taken(told):
            run()
    say(told)


def main() -> None:
    """Print a table for each kind, and write all of them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes: 0.01 is a first look")
    parser.add_argument("--only", default=",".join(SIZES), help="kinds, comma separated")
    parser.add_argument("--data", type=Path, default=REAL, help="HH-RLHF pairs, jsonl.gz")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        point(arguments.point[0], int(arguments.point[1]), arguments.data)
        return
    from rounds import machine, write  # not in the processes of the points, whose memory it would raise

    pinned(arguments.cores)
    display, told = Display(), machine(1)
    for kind in arguments.only.split(","):
        least = LEAST.get(kind, 1)
        # Every size in the same proportion; those that are then too small to tell anything are left out.
        sizes = sorted({max(least, round(size * arguments.share)) for size in SIZES[kind]})
        cores = 1 if kind == "rows on one core" else arguments.cores
        variables = {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": str(cores)}  # the second is how many joblib takes
        points = [alone(__file__, "--data", arguments.data, "--point", kind, size, **variables) for size in sizes]
        growth = {
            name: (fitted(sizes, own), exponents(sizes, own)[-1]) if len(sizes) > 1 else (0.0, 0.0)
            for name in ("cpu", "megabytes")
            for own in [[point[name] for point in points]]
        }
        rows = [
            [f"{size:,}", *(f"{own[name]:.2f}" for name in ("cpu", "wall", "megabytes")), f"{size / own['wall']:,.0f}"]
            for size, own in zip(sizes, points, strict=True)
        ]
        display.table(kind, ("size", "seconds of CPU", "of the wall", "MB more at the peak", "a second"), rows)
        for name, (whole, last) in growth.items():
            verdict = "linear or less" if last <= LINEAR else "ABOVE LINEAR"
            print(f"{kind}, {name}: power {whole:.2f} over all, {last:.2f} between the largest: {verdict}", flush=True)
        if kind == "rows":
            print(f"goal: {GOAL:,} pairs a second at 160,000")
        result = {"machine": told, "share": arguments.share, "sizes": sizes, "points": points, "growth": growth}
        write("scaling", kind if arguments.share == 1 else f"{kind}, share {arguments.share:g}", result)


if __name__ == "__main__":
    main()
