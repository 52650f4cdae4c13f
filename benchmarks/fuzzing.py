"""Does any bytes at a door end in something else than an answer or lines that can be mended? Guided by coverage.

    pip install atheris && python benchmarks/fuzzing.py DOOR [-max_total_time=600] [FOLDER_OF_EXAMPLES]

Runs until it is stopped, or finds what ends in another error, a line that is too long or steers a terminal; libFuzzer
writes the bytes to ``crash-...``, and ``python benchmarks/fuzzing.py DOOR crash-...`` shows it again. All flags of
libFuzzer are taken. `tests/inputs/test_bad_input.py` and `test_bad_state.py` try the same kinds with generated cases.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["valuedrift_mlflow.inputs", "valuedrift_mlflow.data", "yaml"]):
    from valuedrift_mlflow import judges, suite
    from valuedrift_mlflow.data.datasets import load_data
    from valuedrift_mlflow.data.settings import Data
    from valuedrift_mlflow.evaluation.labels import load_labels
    from valuedrift_mlflow.evaluation.reference import load_reference
    from valuedrift_mlflow.inputs.errors import InputError
    from valuedrift_mlflow.models.replies import Bill, Passing, read_completion
    from valuedrift_mlflow.pipeline.designs import load_design
    from valuedrift_mlflow.recipe.read import load_recipe

STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzzing-"))
SUITE = suite.load("vaes?per_topic=1")


def of_file(ending: str, read: Callable[[str], object]) -> Callable[[bytes], None]:
    """A door that reads a file with this ending."""
    file = FOLDER / f"given{ending}"

    def door(content: bytes) -> None:
        file.write_bytes(content)
        read(str(file))

    return door


def of_text(read: Callable[[str], object]) -> Callable[[bytes], None]:
    """A door that takes a text."""
    return lambda content: read(content.decode(errors="replace")) and None


def of_reply(content: bytes) -> None:
    """What a server sends back."""
    with suppress(Passing):
        read_completion(content, Bill())


DOORS: dict[str, Callable[[bytes], None]] = {
    "recipe": of_file(".yaml", load_recipe),
    "design": of_file(".yaml", load_design),
    "suite-csv": of_file(".csv", suite.load),
    "suite-jsonl": of_file(".jsonl", suite.load),
    "sft": of_file(".jsonl", lambda file: load_data(Data(uri=file), "sft")),
    "pairs": of_file(".json", lambda file: load_data(Data(uri=file, on_bad_row="skip"), "pairs")),
    "labels": of_file(".csv", load_labels),
    "reference": of_file(".csv", lambda file: load_reference(file, SUITE)),
    "set": of_text(lambda text: load_recipe("embedded", text)),
    "judge": of_text(judges.load),
    "reply": of_reply,
}


def main() -> None:
    """Fuzz the door that is named first."""
    if len(sys.argv) < 2 or sys.argv[1] not in DOORS:
        raise SystemExit(f"name a door: {', '.join(DOORS)}")
    door = DOORS[sys.argv.pop(1)]

    def tried(content: bytes) -> None:
        try:
            door(content)
        except InputError as error:
            for line in str(error).split("\n"):
                assert len(line) < 2_000 and not STEERS.search(line), ascii(line)

    atheris.Setup(sys.argv, tried)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
