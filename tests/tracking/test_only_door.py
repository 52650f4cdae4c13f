"""``tracking`` is the one place that calls MLflow, and it stands low: it knows no other part of the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import valuedrift_mlflow

PACKAGE = Path(valuedrift_mlflow.__file__).parent
# Plugins, whose base classes are MLflow's, and what speaks of its types: thresholds, signatures.
PLUGINS = {
    "evaluation/gate.py": {"mlflow.models"},
    "evaluation/registered.py": {
        "mlflow",
        "mlflow.entities",
        "mlflow.exceptions",
        "mlflow.genai.scorers",
        "mlflow.genai.scorers.base",
    },
    "models/packaged.py": {"mlflow.types", "mlflow.types.schema"},
    "evaluation/plugin.py": {"mlflow.data.evaluation_dataset", "mlflow.models.evaluation.base"},
    "evaluation/scorer.py": {"mlflow.entities", "mlflow.genai.scorers"},
}
BELOW = {
    "valuedrift_mlflow.inputs",
    "valuedrift_mlflow.inputs.errors",
    "valuedrift_mlflow.inputs.interrupts",
    "valuedrift_mlflow.inputs.processes",
    "valuedrift_mlflow.inputs.reading",
    "valuedrift_mlflow.inputs.redaction",
    "valuedrift_mlflow.inputs.scratch",
    "valuedrift_mlflow.inputs.shown",
    "valuedrift_mlflow.inputs.turns",
    "valuedrift_mlflow.stances",
}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            yield node.module


def of(root: str, modules: Iterator[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == root}


def test_only_tracking_calls_mlflow() -> None:
    others = [file for file in PACKAGE.rglob("*.py") if PACKAGE / "tracking" not in file.parents]
    found = {str(file.relative_to(PACKAGE)): of("mlflow", imported(file)) for file in others}
    assert {name: modules for name, modules in found.items() if modules} == PLUGINS


def test_tracking_knows_no_other_part() -> None:
    for file in (PACKAGE / "tracking").glob("*.py"):
        ours = of("valuedrift_mlflow", imported(file)) - BELOW
        assert all(module.startswith("valuedrift_mlflow.tracking.") for module in ours), (file.name, ours)
