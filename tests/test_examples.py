"""The examples run by the commands in their docstrings, made small; and parts of a package as pip leaves it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands_of_users import program, valuedrift
from mlflow import MlflowClient
from mlflow.entities import Run
from parts_of_users import install

ROOT = Path(__file__).parents[1]
TINY = "samples=1 max_new_tokens=4 suite=vaes?per_topic=1"
TRAINED = f"{TINY} base.model=embedded:random audit=false reference_kl=false"


def the_run(role: str) -> Run:
    client = MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    [run] = client.search_runs(experiments, f"tags.`valuedrift.role` = '{role}'")
    assert run.info.status == "FINISHED"
    return run


def test_every_example_is_short() -> None:
    for file in (ROOT / "examples").glob("own_*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 30, file


@pytest.mark.parametrize(
    ("name", "settings", "role", "expected"),
    [
        ("own_judge", "", "judge_check", {"judge": "own_judge:Words?support=yes&oppose=no"}),
        ("own_format", "", "audit", {"format": "own_format:swapped"}),
        (
            "own_suite",
            "max_new_tokens=4",
            "evaluation",
            {"valuedrift.suite.uri": "own_suite:questions", "valuedrift.suite.items": "8"},
        ),
        (
            "own_reward",
            f"{TRAINED} rloo.max_steps=1 rloo.batch_size=4 rloo.response_length=4",
            "stage",
            {"rloo.reward": "own_reward:brief"},
        ),
        ("own_model", "", "evaluation", {"model": "own_model:Undecided"}),
        (
            "own_algorithm",
            f"{TRAINED} smooth.max_steps=2 smooth.batch_size=2",
            "pipeline",
            {"smooth.algorithm": "own_algorithm:Smooth", "smooth.smoothing": "0.2"},
        ),
    ],
)
def test_an_example_runs(store: Path, name: str, settings: str, role: str, expected: dict[str, str]) -> None:
    example = Path(shutil.copy(ROOT / "examples" / f"{name}.py", store))
    [line] = [line for line in example.read_text(encoding="utf-8").splitlines() if line.startswith("    valuedrift ")]
    _, *arguments = shlex.split(line.replace("embedded:base", "embedded:random"))
    if settings:
        at = arguments.index("--set") + 1 if "--set" in arguments else len(arguments) + 1
        arguments = [*arguments[: at - 1], "--set", " ".join([*arguments[at : at + 1], settings]), *arguments[at + 1 :]]
    done = valuedrift(*arguments)
    assert done.returncode == 0, done.stderr
    found = the_run(role).data.tags | the_run(role).data.params
    assert expected == {key: found.get(key) for key in expected}


PACKAGE = '''
from valuedrift_mlflow.stages.sft import SFT
from valuedrift_mlflow.stances import Verdict

class Judge:
    name, version = "always", "7"
    def judge(self, answers):
        return [Verdict.of((1, 0, 0)) for _ in answers]

class Gentle(SFT):
    """Fine-tuning."""
    strength: float = 1.0
'''
RECIPE = """
base: {model: "embedded:random"}
suite: vaes?per_topic=1
judge: always
samples: 1
max_new_tokens: 4
audit: false
reference_kl: false
stages:
  - {name: first, algorithm: gentle, data: "embedded:sft?size=20", max_steps: 2, batch_size: 2, checkpoint_every: 2}
"""


def test_an_installed_package_gives_a_judge_and_an_algorithm_by_name(store: Path) -> None:
    site = store / "site"
    judges = {"always": "wvs_pip:Judge", "broken": "wvs_broken:Judge"}
    install(site, "wvs_pip", {"judges": judges, "algorithms": {"gentle": "wvs_pip:Gentle"}}, PACKAGE)
    (site / "wvs_broken.py").write_text("import absent_library\n")
    (store / "own.yaml").write_text(RECIPE)
    run = ("main", "--recipe", "own.yaml")

    planned = valuedrift(*run, "--dry-run", path=str(site))
    assert planned.returncode == 0, planned.stderr
    assert "algorithm gentle is code of your own" in planned.stdout  # which a dry run does not import
    for settings, line in (
        ("judge=broken", "wvs_broken:Judge (wvs_pip 1.2): ModuleNotFoundError: No module named 'absent_library'"),
        ("judge=oracle", "and from installed packages: always, broken"),
        ("first.algorithm=magic", "module:Stage, and from installed packages: gentle"),
    ):
        refused = valuedrift(*run, "--set", settings, path=str(site))
        assert refused.returncode == 2, refused.stderr
        assert line in refused.stderr

    done = valuedrift(*run, path=str(site))
    assert done.returncode == 0, done.stderr
    assert the_run("pipeline").data.params["judge"] == "always"
    client = MlflowClient()
    stages = client.search_runs(
        [one.experiment_id for one in client.search_experiments()], "tags.`valuedrift.stage` = 'gentle'"
    )
    assert [stage.data.params["first.strength"] for stage in stages] == ["1.0"]


@pytest.mark.slow  # a minute: it trains and measures as it stands
def test_the_quick_start_moves_what_it_says(store: Path) -> None:
    done = program((ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stderr
    by_step = dict(re.findall(r"^ +(\d+)  (\d\.\d+)$", done.stdout, re.MULTILINE))
    assert list(by_step) == ["0", "10", "20", "30"]
    assert float(by_step["0"]) < 0.5 < 0.75 < float(by_step["30"])  # every answer that it learns supports
