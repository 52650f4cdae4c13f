"""Every block of code in the README and the documents runs, made small: commands check all they can and compute
nothing (``--dry-run``) unless they have no such flag, Python runs as it stands but for fewer prompts and steps.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from commands_of_users import entry_point, valuedrift
from working_folder import working_in

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
# A command that starts something else than a job of this package, and where it is tried instead.
ELSEWHERE = {
    "pip install": "by .ci/run",
    "mlflow ui": "MLflow's own",
    "mlflow run . --env-manager local": "by tests/test_mlproject.py",
    "python examples/quickstart.py": "by tests/test_examples.py, nightly",
    "mlflow models serve": "by tests/tracking/test_checkpoints.py",
    "python benchmarks/": "by hand: minutes to hours",
    "mkdocs serve": "by .ci/run, which builds the site",
}
# What makes Python code small, word for word.
SMALLER = {
    'baseline="models:/assistant/1", samples=5)': 'baseline="models:/assistant/1", '
    "samples=1, suite=SMALL, max_new_tokens=4)",
    'evaluate("models:/assistant/2", baseline="models:/assistant/1")': 'evaluate("models:/assistant/2", '
    'baseline="models:/assistant/1", samples=1, suite=SMALL, max_new_tokens=4)',
    'evaluate("models:/assistant@candidate", baseline="models:/assistant@champion")': "evaluate("
    '"models:/assistant@candidate", baseline="models:/assistant@champion", samples=1, suite=SMALL, max_new_tokens=4)',
    'suite.load("vaes").frame()': "suite.load(SMALL).frame()",
    "threshold=0.1": "threshold=1",  # so few answers cannot show less
    "threshold=0.5": "threshold=2",
    # So few answers can show nothing: they are not let through.
    "mlflow.validate_evaluation_results(valuedrift_mlflow.gate_thresholds(": "import pytest\n"
    'with pytest.raises(Exception, match="drift_ci_high/abortion"):\n'
    "    mlflow.validate_evaluation_results(valuedrift_mlflow.gate_thresholds(",
    '"samples": 5,': '"samples": 1, "max_new_tokens": 4,',
    'settings="samples=2"': 'settings="samples=1 max_new_tokens=4 suite=vaes?topics=abortion&per_topic=2 audit=false '
    'reference_kl=false sft.max_steps=1 dpo.max_steps=1 sft.batch_size=2 dpo.batch_size=2"',
    "size=1000": "size=20",
}
SMALL = "vaes?topics=abortion"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code, and why it cannot run here (empty where it can)."""

    document: Path
    language: str
    code: str
    why_not: str


def blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        for match in FENCED.finditer(document.read_text(encoding="utf-8")):
            yield Block(document, match["language"], match["code"], match["why"] or "")


def commands(language: str = "bash") -> list[tuple[str, str]]:
    """The lines of all blocks that can run, each once, with the first document that has it; those of the FAQ fail."""
    found: dict[str, str] = {}
    for block in blocks():
        if block.language == language and not block.why_not and block.document.name != "faq.md":
            for written in block.code.splitlines():
                line = written.partition("  #")[0].strip()
                if line and not line.startswith(tuple(ELSEWHERE)):
                    found.setdefault(line, block.document.name)
    return [(name, line) for line, name in found.items()]


@pytest.fixture(scope="module")
def world(shared_folder: Path, random_folder: Path) -> Iterator[dict[str, str]]:
    """A folder with the files, models and runs that the documents speak of; what stands for their ids."""
    import gzip
    import json
    import shutil

    import mlflow
    import pandas as pd

    import valuedrift_mlflow
    from valuedrift_mlflow.embedded import corpus

    with working_in(shared_folder):
        rows = corpus.rows("embedded:pairs?gap=1&size=40")
        plain = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
        with gzip.open("pairs.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in plain)
        answers = [{"messages": row["messages"]} for row in corpus.rows("embedded:sft?size=40")]
        Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
        prompts = [{"prompt": row["messages"][0]["content"]} for row in answers]
        Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
        Path("odd.jsonl").write_text('{"a": 1, "b": "x"}\n')
        Path("two.jsonl").write_text('{"instruction": "Q?", "first": "one", "second": "two", "better": 1}\n' * 3)
        Path("labelled.csv").write_text(
            "proposition,prompt,response,label\n"
            "Abortion should be legal.,Should abortion be legal?,I support legal abortion.,support\n"
            "Abortion should be legal.,Should abortion be legal?,I oppose legal abortion.,oppose\n"
        )
        valuedrift_mlflow.suite.load("vaes?topics=religion&per_topic=4").frame().to_csv("my_suite.csv", index=False)
        Path("my_module.py").write_text("def function(prompts, responses):\n    return [1.0 for _ in responses]\n")
        for folder in ("checkpoint", "my-model"):
            shutil.copytree(random_folder, folder)
        [recipe] = [block.code for block in blocks() if block.language == "yaml" and "stages:" in block.code]
        Path("my_recipe.yaml").write_text(recipe)
        small = "samples=1 max_new_tokens=32 audit=false reference_kl=false suite=vaes?topics=abortion&per_topic=4"
        valuedrift_mlflow.run_pipeline("my_recipe.yaml", settings=small)
        client = mlflow.MlflowClient()
        # The oldest come last, the base model's run among them.
        made = [run for run in client.search_runs(["1"]) if run.data.tags.get("valuedrift.stage") != "base"]
        runs = {run.data.tags.get("valuedrift.role"): run for run in made}
        models = client.search_logged_models(["1"], filter_string=f"source_run_id = '{runs['stage'].info.run_id}'")
        last = max(models, key=lambda model: model.creation_timestamp)
        for number, alias in ((1, "champion"), (2, "candidate")):
            mlflow.register_model(f"models:/{last.model_id}", "assistant")
            client.set_registered_model_alias("assistant", alias, str(number))
        drawn = valuedrift_mlflow.review(runs["stage"].info.run_id, n=12).file
        labelled = pd.read_csv(drawn)
        drawn.unlink()
        labelled["label"] = "neutral"
        labelled.to_csv(f"review-{runs['stage'].info.run_id}.csv", index=False)
        stopped = client.create_run("1", tags={"valuedrift.role": "pipeline"}).info.run_id
        yield {"stopped": stopped} | {role: runs[role].info.run_id for role in ("pipeline", "stage")}


def run(line: str, world: dict[str, str], *, dry: bool = True) -> CompletedProcess[str]:
    """A command as its document writes it, with a run's own id, in a dry run where it has one."""
    line = line.replace("resume=RUN_ID", f"resume={world['stopped']}").replace("RUN_ID", world["stage"])
    words = shlex.split(line)
    if words[:2] == ["mlflow", "run"]:
        name = words[words.index("-e") + 1] if "-e" in words else "main"
        pairs = [words[place + 1] for place, word in enumerate(words) if word == "-P"]
        flags = [part for key, _, value in (pair.partition("=") for pair in pairs) for part in (f"--{key}", value)]
    elif words[0] == "valuedrift":
        name, flags = words[1].replace("-", "_"), words[2:]
    else:
        assert words[:2] == ["python", "-m"]
        name, flags = words[2].removeprefix("entrypoints."), words[3:]
    if dry and name != "review" and "--help" not in flags and not any("dry" in flag for flag in flags):
        flags += ["--dry-run", "true"]
    if words[0] == "valuedrift":
        return valuedrift(words[1], *flags)
    return entry_point(name, *flags)


@pytest.mark.parametrize(("document", "line"), commands())
def test_a_documented_command_runs(shared_folder: Path, world: dict[str, str], document: str, line: str) -> None:
    with working_in(shared_folder):
        done = run(line, world)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_error_of_the_faq_is_what_its_command_says(shared_folder: Path, world: dict[str, str]) -> None:
    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    told = re.findall(r"```bash\n([^`]*)```\n\n```text\n([^`]*)```", text)
    assert len(told) > 5
    for line, said in told:
        with working_in(shared_folder):
            done = run(line.strip(), world, dry=False)
        assert done.returncode == 2, line
        for beginning in said.splitlines():
            assert beginning in done.stderr, (line, done.stderr)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if "```python" in path.read_text(encoding="utf-8")])
def test_documented_python_runs(shared_folder: Path, world: dict[str, str], document: Path) -> None:
    """The blocks of a document one after another, as somebody pastes them into one session."""
    session: dict[str, object] = {"SMALL": SMALL, "__name__": "pasted"}
    for block in blocks():
        if block.document == document and block.language == "python" and not block.why_not:
            code = block.code.replace("RUN_ID", world["stage"])
            for written, smaller in SMALLER.items():
                code = code.replace(written, smaller)
            with working_in(shared_folder):
                exec(compile(code, str(document), "exec"), session)


def test_documented_settings_are_read(shared_folder: Path, world: dict[str, str]) -> None:
    for block in blocks():
        if block.language == "yaml" and not block.why_not and "about:" in block.code:
            with working_in(shared_folder):
                Path("my_design.yaml").write_text(block.code)
                done = entry_point("ablate", "--design", "my_design.yaml", "--dry-run", "true")
            assert done.returncode == 0, done.stderr
            break
    else:
        pytest.fail("no design in the documents")


def test_every_block_says_what_it_is_and_few_cannot_run() -> None:
    found = list(blocks())
    first = found[0]
    assert first.document.name == "README.md"  # the two commands that .ci/run and a newcomer begin with
    assert not first.language
    assert {block.language for block in found[1:]} <= {"bash", "python", "yaml", "toml", "text"}
    for block in found:
        if block.language == "yaml":
            assert yaml.safe_load(block.code)
        if block.language in ("yaml", "toml", "python", "bash"):
            assert block.why_not == "" or len(block.why_not) > 5
    assert sum(bool(block.why_not) for block in found) <= 12
