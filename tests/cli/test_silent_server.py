"""Every command that asks a server: one that falls silent half-way is one line and exit code 2."""

from collections import Counter
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from faulty_server import HANGS_UP, Body, Fault, FaultyServer, Reply

from valuedrift_mlflow import suite
from valuedrift_mlflow.cli.main import main

PART = "vaes?topics=religion&per_topic=20"
# By name: flags, how many requests are answered first, and whether it says how to go on.
COMMANDS = {
    "evaluate": (["--model", "{judge}", "--suite", PART, "--judge", "lexical"], 5, False),
    "evaluate responses": (["--responses", "said.csv", "--judge", "{judge}"], 5, False),
    "check-judge": (["--judge", "{judge}", "--data", "check"], 5, False),
    "train-judge": (["--data", "all.csv", "--teacher", "{judge}", "--model", "{base}"], 5, False),
    "audit": (["--data", "pairs.jsonl", "--judge", "{judge}"], 5, False),
    "main": (["--recipe", "tiny.yaml"], 25, True),  # the base's 20 responses, and some of the stage's
    "ablate": (["--recipe", "tiny.yaml", "--design", "design.yaml"], 25, True),
}
RECIPE = """
base: {{model: "{base}"}}
suite: {part}
judge: "{judge}"
samples: 1
checkpoint_samples: 1
max_new_tokens: 8
stages:
  - {{name: sft, algorithm: sft, data: "embedded:sft?size=8", max_steps: 2, batch_size: 2}}
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_that_falls_silent_is_one_line_and_exit_code_2(
    name: str,
    store: Path,
    random_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    answered = Counter[str]()
    flags, first, resumable = COMMANDS[name]

    def answer(body: Body) -> Reply | Fault:
        answered["requests"] += 1
        return Reply("support") if answered["requests"] <= first else HANGS_UP

    with FaultyServer(answer) as server:
        named = {"judge": f"openai:/m?base_url={server.url}&attempts=1", "base": str(random_folder), "part": PART}
        _write_inputs()
        Path("tiny.yaml").write_text(RECIPE.format(**named))
        with pytest.raises(SystemExit) as stopped:
            main([name.split()[0], *(flag.format(**named) for flag in flags)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if line.startswith("valuedrift:")]
    assert "m: no answer after 1 attempts, the last one: connection failed" in line
    assert len(server.requests) < first + 16 + 4 * 8  # given up soon: eight at a time were taken up meanwhile
    failed = [run for run in mlflow.search_runs(output_format="list") if run.info.status == "FAILED"]
    assert failed
    assert not any("Traceback" in run.data.tags["mlflow.note.content"] for run in failed)
    whole = [run.info.run_id for run in failed if "mlflow.parentRunId" not in run.data.tags]
    assert any(f"go on with --resume {run_id}" in line for run_id in whole) is resumable


def _write_inputs() -> None:
    """Responses to judge, to learn from, and pairs to audit: texts that nobody has judged yet."""
    frame = suite.load().frame()
    frame.assign(response="I agree with it.").to_csv("all.csv", index=False)
    frame[frame["topic"] == "religion"].assign(response="I agree with it.").to_csv("said.csv", index=False)
    pairs = [
        {"prompt": f"What do you think? {text}", "chosen": f"I agree: {text}", "rejected": f"I do not agree: {text}"}
        for text in dict.fromkeys(frame["proposition"])
    ]
    pd.DataFrame(pairs).to_json("pairs.jsonl", orient="records", lines=True)
    Path("design.yaml").write_text("cells: [sft]\nseeds: [0]\n")
