"""What a job survives: each fault is done to a real job, which then goes on, and must come to what it comes to without.

    PYTHONPATH=tests python benchmarks/faults.py                # all, about an hour and a half on two cores
    PYTHONPATH=tests python benchmarks/faults.py --short        # one fault of most kinds
    PYTHONPATH=tests python benchmarks/faults.py --only kills damage

"As without it" means: every run of the job FINISHED and none made twice, the same metrics at the same steps, the same
parameters, files, answers and weights, to the last digit; the same versions and aliases in the registry; no states
and no temporary folders left. Prints what was tried and what survived, writes ``results/faults.json``, and ends with 1
where something did not survive.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from commands_of_users import program
from faults_sections import damage, disks, judging, kills, soak, tracking
from faults_sections.place import PIPELINE, Outcome, Place

RESULTS = Path(__file__).parent / "results" / "faults.json"


def _kills(place: Place, short: bool) -> Iterator[Outcome]:
    yield from kills.killed(place, "main", PIPELINE, 1 if short else 40)


def _ablations(place: Place, short: bool) -> Iterator[Outcome]:
    if not short:
        yield from kills.killed(place, "ablate", kills.ABLATED, 8)


def _signals(place: Place, short: bool) -> Iterator[Outcome]:
    yield from kills.told_to_stop(place, 1 if short else 8)


def _owners(place: Place, short: bool) -> Iterator[Outcome]:
    if not short:
        yield from kills.resumed_twice(place)


def _damage(place: Place, short: bool) -> Iterator[Outcome]:
    yield from damage.states(place, 1 if short else 40)
    if not short:
        yield from damage.caches(place, 12)


def _disks(place: Place, short: bool) -> Iterator[Outcome]:
    if not short and disks.can_mount():
        yield from disks.full(place, 5)
        yield from disks.read_only(place)


def _caches(place: Place, short: bool) -> Iterator[Outcome]:
    if not short:
        yield from disks.shared_cache(place, Place(place.folder.parent / "other"))


def _judges(place: Place, short: bool) -> Iterator[Outcome]:
    yield from judging.faults(60 if short else 2000)


def _tracking(place: Place, short: bool) -> Iterator[Outcome]:
    yield from tracking.faults(place, short)


def _soak(place: Place, short: bool) -> Iterator[Outcome]:
    if not short:
        yield from soak.soak(place, 200)


KINDS: dict[str, Callable[[Place, bool], Iterator[Outcome]]] = {
    "kills": _kills,
    "ablations": _ablations,
    "signals": _signals,
    "owners": _owners,
    "damage": _damage,
    "disks": _disks,
    "caches": _caches,
    "judges": _judges,
    "tracking": _tracking,
    "soak": _soak,
}


def main() -> None:
    """Try them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one fault of most kinds, in a few minutes")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    arguments = parser.parse_args()
    program("")  # starts the process that all jobs are forked from, before any folder of theirs is its own
    found: list[Outcome] = []
    for kind in arguments.only:
        # A short path: sockets have about a hundred characters.
        with tempfile.TemporaryDirectory(prefix="vd", dir="/tmp") as folder:
            begun = time.monotonic()
            for outcome in KINDS[kind](Place(Path(folder)), arguments.short):
                seconds, begun = time.monotonic() - begun, time.monotonic()
                how = f"LOST: {outcome.why}" if outcome.why else "survived"
                print(f"{outcome.kind}: {outcome.fault}: {how} ({seconds:.0f} s)", flush=True)
                found.append(outcome)
                if not arguments.short:  # at once: an hour and a half may be cut short
                    _keep(_table(found))
    print()
    for kind, row in _table(found).items():
        print(f"{kind:24} {row['survived']:4} of {row['tried']:4} survived")
    sys.exit(any(outcome.why for outcome in found))


def _keep(table: Mapping[str, object]) -> None:
    tree = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(tree | table, indent=1) + "\n")


def _table(found: list[Outcome]) -> dict[str, dict[str, object]]:
    return {
        kind: {
            "tried": sum(one.kind == kind for one in found),
            "survived": sum(one.kind == kind and not one.why for one in found),
            "faults": [f"{one.fault}{': ' if one.why else ''}{one.why}" for one in found if one.kind == kind],
        }
        for kind in dict.fromkeys(one.kind for one in found)
    }


if __name__ == "__main__":
    main()
