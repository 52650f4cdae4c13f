"""How much slower a model speaks while other work in Python is done beside it: in a thread, and in processes.

python benchmarks/turns.py                 # 110 prompts, three rounds: four minutes on two cores that are free
python benchmarks/turns.py --prompts 550

In turn: the model alone; beside a thread that counts, and beside one in which the judge reads without a pause, each
with the turns of 5 ms that Python gives and with those of 0.1 ms that this package gives beside a training; beside the
same answers read in processes.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle, islice

import torch
from processes import pinned
from rounds import compared, in_turn, load, machine, write

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.inputs.pulse import meanwhile
from valuedrift_mlflow.inputs.turns import short_turns
from valuedrift_mlflow.judges.many import MANY, verdicts
from valuedrift_mlflow.models.generation import Sampling
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stances import Answer

SIDES = ("alone", "counting, 5 ms", "counting, 0.1 ms", "judge, 5 ms", "judge, 0.1 ms", "processes")
_COUNTED = 1_000_000


def count() -> None:
    """A while of Python that never gives its turn away by itself, as no library's functions are in it."""
    for _ in range(_COUNTED):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=110)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    pinned(arguments.cores)
    torch.set_num_threads(arguments.cores)
    told = machine(arguments.cores)
    model, judge = load("embedded", 0, 1.0), judges.load("lexical")
    items = suite.load(f"vaes?per_topic={max(1, arguments.prompts // 11)}").items

    def speak() -> Sequence[Sequence[str]]:
        keys = [item.item_id for item in items]
        return model.generator().generate([item.prompt for item in items], keys, Sampling(1, 1.0, 64), lambda _: None)

    said = [
        Answer(item.proposition, item.prompt, own[0], item.polarity) for item, own in zip(items, speak(), strict=True)
    ]
    answers = list(islice(cycle(said), max(MANY, len(said))))
    verdicts(judge, answers)  # starts the processes

    taken: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(arguments.rounds):
        for name in SIDES:
            with ExitStack() as stack:  # what it waits for at its end is not timed
                if name.endswith("0.1 ms"):
                    stack.enter_context(short_turns())
                if name.startswith("counting"):
                    stack.enter_context(meanwhile(count))
                if name.startswith("judge"):
                    stack.enter_context(meanwhile(lambda: judge.judge(said[:50])))
                if name == "processes":
                    stack.enter_context(meanwhile(lambda: verdicts(judge, answers)))
                taken[name] += in_turn({name: speak}, 1)[name]
    found = compared(taken, "alone")
    rows = [
        [name, f"{own['wall']['median_seconds']:.2f}", f"{own['wall']['times_ours']:.1f}"]
        for name, own in found.items()
    ]
    Display().table(f"{len(items)} answers of the embedded model", ("beside it", "seconds", "times alone"), rows)
    command = " ".join(["python", "benchmarks/turns.py", *sys.argv[1:]])
    write("turns", str(len(items)), {"machine": told, "command": command, "sides": found})


if __name__ == "__main__":
    main()
