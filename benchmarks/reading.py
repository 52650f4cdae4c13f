"""How many rows a second is training data read at, by layout?

Each layout is written to a json lines file and read to the end, as an audit and a training do (``stream``: recognised,
every cell looked at, bad rows counted), beside what a script without any check would do in the same process: the
``datasets`` library reads the file and its rows are brought into messages (``trl.extract_prompt`` where the sides are
whole dialogues). The peer's first pass also writes the library's cache; it is not timed. At last one file is read by
our reader and by the library's, without looking at the rows.

    python benchmarks/reading.py                 # 50,000 rows of each layout: about a minute
    python benchmarks/reading.py --rows 5000 --profile hh-rlhf
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SENTENCE = "the people of a town should decide about what they pay for and who may speak because it is fair"
WORDS = SENTENCE.split()
Row = dict[str, Any]


def told(draw: random.Random, words: int) -> str:
    """A text of so many words."""
    return " ".join(draw.choices(WORDS, k=words)).capitalize() + "."


def user(text: str) -> Row:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    """An assistant's message."""
    return {"role": "assistant", "content": text}


def pairs(draw: random.Random) -> Row:
    """Texts in columns prompt, chosen, rejected."""
    return {"prompt": told(draw, 20), "chosen": told(draw, 60), "rejected": told(draw, 60)}


def hh_rlhf(draw: random.Random) -> Row:
    """Whole dialogues as texts, with an earlier turn."""
    begun = f"\n\nHuman: {told(draw, 20)}\n\nAssistant: {told(draw, 60)}\n\nHuman: {told(draw, 10)}\n\nAssistant: "
    return {"chosen": begun + told(draw, 60), "rejected": begun + told(draw, 60)}


def implicit_prompt(draw: random.Random) -> Row:
    """Whole dialogues as messages (TRL's implicit prompt)."""
    begun = [user(told(draw, 20)), assistant(told(draw, 60)), user(told(draw, 10))]
    return {side: [*begun, assistant(told(draw, 60))] for side in ("chosen", "rejected")} | {"source": "made"}


def messages(draw: random.Random) -> Row:
    """A dialogue of two answers, of which SFT learns both."""
    return {
        "messages": [user(told(draw, 20)), assistant(told(draw, 60)), user(told(draw, 10)), assistant(told(draw, 60))]
    }


def as_messages(row: Row) -> Row:
    """What a script makes of texts in columns."""
    return {"prompt": [user(row["prompt"])]} | {side: [assistant(row[side])] for side in ("chosen", "rejected")}


def of_hh_rlhf(row: Row) -> Row:
    """What a script makes of HH-RLHF: all before the last answer is the prompt."""
    prompt, _, chosen = row["chosen"].rpartition("\n\nAssistant:")
    turns = [turn.partition(": ")[::2] for turn in prompt.split("\n\n") if turn]
    asked = [{"role": "user" if who == "Human" else "assistant", "content": text} for who, text in turns]
    rejected = row["rejected"].rpartition("\n\nAssistant:")[2]
    return {"prompt": asked, "chosen": [assistant(chosen.strip())], "rejected": [assistant(rejected.strip())]}


def of_messages(row: Row) -> Row:
    """What a script makes of dialogues: nothing."""
    return row


def extracted(row: Row) -> Row:
    """What TRL makes of its implicit prompt."""
    from trl import extract_prompt

    made: Row = extract_prompt(row)
    return made


LAYOUTS: dict[str, tuple[Callable[[random.Random], Row], Callable[[Row], Row]]] = {
    "pairs": (pairs, as_messages),
    "hh-rlhf": (hh_rlhf, of_hh_rlhf),
    "implicit-prompt": (implicit_prompt, extracted),
    "messages": (messages, of_messages),
}


def ours(file: Path) -> Iterator[Row]:
    """The rows as an audit and a training read them."""
    from valuedrift_mlflow.data.datasets import stream
    from valuedrift_mlflow.data.settings import Data

    return iter(stream(Data(uri=str(file))))


def theirs(file: Path, make: Callable[[Row], Row], cache: Path) -> Iterator[Row]:
    """The rows as a script without checks reads them."""
    import datasets

    datasets.disable_progress_bars()
    return map(make, datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(cache)))


def readers(file: Path, cache: Path) -> dict[str, Callable[[], Iterator[object]]]:
    """Ways to read a file alone, before any row is looked at."""
    import datasets

    from valuedrift_mlflow.data.files import file_rows, parsed

    def library(**how: Any) -> Iterator[object]:
        return iter(datasets.load_dataset("json", data_files=str(file), split="train", **how))

    return {
        "data/files.py": lambda: map(parsed, file_rows(file)),
        "library, first time": lambda: library(cache_dir=str(cache)),
        "library, from its cache": lambda: library(cache_dir=str(cache)),
        "library, streaming": lambda: library(streaming=True),
    }


def rate(rows: Iterator[Row], count: int) -> float:
    """Rows a second of processor time, so that what else runs on the machine matters less.

    The first row, before which libraries are imported and columns looked at, is not in it.
    """
    next(rows)
    start = time.process_time()
    for _ in rows:
        pass
    return (count - 1) / (time.process_time() - start)


def main() -> None:
    """Print rows a second for each layout, the peer's, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--profile", choices=tuple(LAYOUTS), help="where the time goes in one layout")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, bring) in LAYOUTS.items():
            if arguments.profile not in (None, name):
                continue
            draw, file = random.Random(0), Path(folder) / f"{name}.jsonl"
            with file.open("w") as lines:
                lines.writelines(json.dumps(make(draw)) + "\n" for _ in range(arguments.rows))
            if arguments.profile:
                rows = ours(file)
                next(rows)  # what is imported is not in it
                with cProfile.Profile() as profile:
                    rate(rows, arguments.rows)
                pstats.Stats(profile).sort_stats("tottime").print_stats(30)
                continue
            next(theirs(file, bring, Path(folder)))
            own, peer = rate(ours(file), arguments.rows), rate(theirs(file, bring, Path(folder)), arguments.rows)
            print(f"{name}: {own:,.0f} rows/s, peer {peer:,.0f} rows/s, ratio {own / peer:.2f}", flush=True)
        if not arguments.profile:
            for name, read in readers(file, Path(folder) / "alone").items():
                start = time.process_time()
                count = sum(1 for _ in read())
                print(f"{file.name} alone, {name}: {count / (time.process_time() - start):,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
