"""Models of the tracking store: those that are weights alone load, and nothing that comes with one runs unasked."""

import pickle
from pathlib import Path

import mlflow
import pytest
from mlflow.pyfunc import PythonModel

from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import How
from valuedrift_mlflow.models.generation import Sampling

pytestmark = pytest.mark.usefixtures("store")
ALLOWED = How(pyfunc_code=True)


class Yes(PythonModel):
    def predict(self, context: object, model_input: list[str]) -> list[str]:  # type: ignore[override]
        return ["Yes."] * len(model_input)


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.ran,)


def files_of(uri: str) -> Path:
    """Where a logged model lies in the store."""
    place = mlflow.get_logged_model(uri.removeprefix("models:/")).artifact_location
    return Path(str(place).removeprefix("file://"))


def ours(folder: Path) -> str:
    """A model as a stage logs it."""
    with mlflow.start_run() as active:
        run = tracking.OpenRun(active.info.run_id)
        loaded = models.load_model(str(folder))
        model_id = tracking.log_final_model(
            run, loaded.model, loaded.tokenizer, stage="sft", step=1, max_new_tokens=3, temperature=0.0
        )
    return f"models:/{model_id}"


def test_a_pickle_runs_where_that_is_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    with mlflow.start_run() as active:
        info = mlflow.pyfunc.log_model(name="mine", python_model=Yes(), pip_requirements=["mlflow"])
    uris = [info.model_uri, f"runs:/{active.info.run_id}/mine"]
    [answers] = models.load_generator(info.model_uri, ALLOWED).generate(
        ["Should we?"], ["k"], Sampling(1, 0.0, 3), lambda count: None
    )
    assert answers == ["Yes."]
    ran = tmp_path / "ran"
    [(file)] = files_of(info.model_uri).rglob("python_model.pkl")
    file.write_bytes(pickle.dumps(Touch(ran)))
    for uri in uris:
        for refuse in (models.check_model, models.load_generator, models.load_model):
            with pytest.raises(InputError, match=r"the pickle 'python_model\.pkl'.*--allow-pyfunc-code") as caught:
                refuse(uri)
            assert "\n" not in str(caught.value)
    assert not ran.exists()


def test_our_own_model_is_its_weights_whatever_code_lies_with_it(random_folder: Path, tmp_path: Path) -> None:
    uri, ran = ours(random_folder), tmp_path / "ran"
    for file in files_of(uri).rglob("*.py"):  # the loader that MLflow would import
        file.write_text(f"open({str(ran)!r}, 'w')\n" + file.read_text())
    ids = models.load_model(str(random_folder)).tokenizer("Should we?", return_tensors="pt")["input_ids"]
    there, here = models.load_model(uri).model, models.load_model(str(random_folder)).model
    assert there(ids).logits.equal(here(ids).logits)
    assert not ran.exists()


def test_a_model_that_only_says_it_is_ours_runs_nothing_and_is_refused(tmp_path: Path) -> None:
    code, data, ran = tmp_path / "valuedrift_answering.py", tmp_path / "data", tmp_path / "ran"
    code.write_text(f"open({str(ran)!r}, 'w')\ndef _load_pyfunc(path): ...\n")
    data.mkdir()
    (data / "config.json").write_text("{}")
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="fake",
            loader_module="valuedrift_answering",
            code_paths=[str(code)],
            data_path=str(data),
            pip_requirements=["mlflow"],
        )
    with pytest.raises(InputError, match="a causal language model that transformers can load"):
        models.load_generator(info.model_uri)
    assert not ran.exists()


def test_a_model_that_names_files_outside_of_it_is_refused(random_folder: Path) -> None:
    uri = ours(random_folder)
    file = files_of(uri) / "MLmodel"
    file.write_text(file.read_text().replace("data: data/model", "data: ../../../.."))
    with pytest.raises(InputError, match="a folder inside the model"):
        models.load_model(uri)


def test_a_model_of_mlflows_flavor_transformers_is_its_weights(random_folder: Path) -> None:
    loaded = models.load_model(str(random_folder))
    with mlflow.start_run():
        info = mlflow.transformers.log_model(
            {"model": loaded.model, "tokenizer": loaded.tokenizer},
            name="theirs",
            task="text-generation",
            pip_requirements=["mlflow"],
        )
    there = models.load_model(info.model_uri)
    ids = loaded.tokenizer("Should we?", return_tensors="pt")["input_ids"]
    assert there.model(ids).logits.equal(loaded.model(ids).logits)
    assert there.tokenizer.chat_template == loaded.tokenizer.chat_template
