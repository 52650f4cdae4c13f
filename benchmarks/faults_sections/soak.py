"""A training with many checkpoints: what it uses does not grow with them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from faults_sections.damage import ONE_STAGE
from faults_sections.place import SFT, Outcome, Place

_NAMES = ("memory", "threads", "open files")


def soak(place: Place, checkpoints: int) -> Iterator[Outcome]:
    """One checkpoint a step; the last fifth of them is held against the second one, when all is loaded."""
    tree = ONE_STAGE | {"stages": [SFT | {"max_steps": checkpoints, "checkpoint_every": 1, "learning_rate": 1e-4}]}
    used = place.temporary / "used"
    done = place.run("sft", "--recipe", place.recipe(tree), aim={"used": str(used)})
    if done.returncode:
        yield Outcome("soak", f"{checkpoints} checkpoints", done.stderr[-300:])
        return
    rows = [[int(word) for word in line.split()] for line in used.read_text().splitlines()]
    fifth = len(rows) // 5
    for column, name in enumerate(_NAMES):
        early = statistics.median(row[column] for row in rows[fifth : 2 * fifth])
        late = statistics.median(row[column] for row in rows[-fifth:])
        told = f"{name}: {early:,.0f} to {late:,.0f}"
        yield Outcome("soak", f"{checkpoints} checkpoints, {told}", "" if late <= 1.1 * early + 2 else "it grows")
    place.forget()
