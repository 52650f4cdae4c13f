"""A judge as a packaged model: what it takes and gives, an example, and how it is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def log_judge_model(
    folder: Path,
    *,
    loader: str,
    package: str,
    name: str,
    register: str,
    examples: Sequence[Mapping[str, object]],
    parameters: Mapping[str, str],
) -> str:
    """Log what a judge is made of in the active run, register it where a name is given; returns its URI.

    Args:
        folder: what is handed to the loader.
        loader: the module that loads it, which has to be installed where the model is used.
        package: the requirement that brings this module.
        name: of the LoggedModel.
        register: name of the registered model that it becomes a version of; none where it is empty.
        examples: rows that show what it takes.
        parameters: of the LoggedModel.
    """
    import mlflow
    import pandas as pd

    info = mlflow.pyfunc.log_model(
        name=name,
        loader_module=loader,
        data_path=str(folder),
        signature=judge_signature(),
        input_example=pd.DataFrame(list(examples)),
        registered_model_name=register or None,
        # Given, as MLflow would load the judge in another process to find out.
        pip_requirements=[f"mlflow=={mlflow.__version__}", package],
        params=dict(parameters),
    )
    return f"models:/{register}/{info.registered_model_version}" if register else f"models:/{info.model_id}"


def judge_signature() -> ModelSignature:
    """Proposition, prompt and response, and the polarity where it is known, to a label with its probabilities."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    texts = [ColSpec(DataType.string, name) for name in ("proposition", "prompt", "response")]
    # A double: whole numbers with gaps are none to pandas, and MLflow would refuse them.
    inputs = Schema([*texts, ColSpec(DataType.double, "polarity", required=False)])
    shares = [ColSpec(DataType.double, stance.value) for stance in STANCES]
    outputs = Schema([ColSpec(DataType.string, "label"), *shares, ColSpec(DataType.string, "reason")])
    return ModelSignature(inputs=inputs, outputs=outputs)
