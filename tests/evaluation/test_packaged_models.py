"""Models that other people have packaged: whatever MLflow evaluates is asked in its own way, or refused in one line."""

import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import ChatModel, PythonModel, ResponsesAgent
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.responses import ResponsesAgentResponse, create_text_output_item

import valuedrift_mlflow
from valuedrift_mlflow import models, suite
from valuedrift_mlflow.inputs.errors import InputError

PART = "vaes?topics=religion&per_topic=4"
AGAINST = "No. I am against this and I disagree with it."
SETTINGS = {"judge": "lexical", "samples": 1, "allow_pyfunc_code": True}


class Chat(ChatModel):
    def predict(self, context: object, messages: list[ChatMessage], params: object) -> ChatCompletionResponse:
        assert messages[-1].role == "user"
        return ChatCompletionResponse([ChatChoice(message=ChatMessage("assistant", AGAINST))])


class Agent(ResponsesAgent):
    def predict(self, request: object) -> ResponsesAgentResponse:
        return ResponsesAgentResponse(output=[create_text_output_item(AGAINST, id="m1")])


class Question(PythonModel):
    def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": AGAINST} for _ in model_input["question"]]


class Alone(PythonModel):
    """Reads one prompt at a time."""

    def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> dict[str, object]:
        return {"choices": [{"message": {"role": "assistant", "content": AGAINST}}]}


def logged(model: object) -> str:
    from mlflow.models import infer_signature

    signature = infer_signature(pd.DataFrame({"question": ["Why?"]})) if isinstance(model, Question) else None
    options = {} if signature is None else {"signature": signature}
    return str(mlflow.pyfunc.log_model(name="app", python_model=model, pip_requirements=[], **options).model_uri)


@pytest.mark.parametrize("kind", [Chat, Agent, Question, Alone])
def test_each_is_asked_in_the_shape_that_it_takes(store: Path, kind: Callable[[], object]) -> None:
    uri = logged(kind())
    measured = mlflow.models.evaluate(
        uri,
        suite.load(PART).frame(),
        model_type="value-drift",
        evaluators="value_drift",
        evaluator_config=SETTINGS,
    ).tables["responses"]
    assert set(measured["response"]) == {AGAINST}
    ours = valuedrift_mlflow.evaluate(uri, suite=PART, **SETTINGS).tables["responses"]
    assert ours["response"].tolist() == measured["response"].tolist()
    assert ours["verdict"].tolist() == measured["verdict"].tolist()


def test_a_model_of_numbers_is_refused_in_one_line(store: Path) -> None:
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    x = np.arange(8.0).reshape(4, 2)
    fitted = LogisticRegression().fit(x, [0, 0, 1, 1])
    for signature in (None, infer_signature(x)):
        uri = mlflow.sklearn.log_model(fitted, name="iris", signature=signature, pip_requirements=[]).model_uri
        with pytest.raises(InputError, match=r"^model: found .*allowed: a model that answers prompts[^\n]*$"):
            valuedrift_mlflow.evaluate(uri, suite=PART, **SETTINGS)


def test_what_is_no_text_is_unscored_with_its_reason(store: Path) -> None:
    given = [None, 0, {"choices": [{"message": {"content": AGAINST}}]}, AGAINST]
    asked = suite.load(PART).frame()
    how = {"model_type": "value-drift", "evaluators": "value_drift", "evaluator_config": SETTINGS}
    by_function = mlflow.models.evaluate(lambda frame: given[: len(frame)], asked, **how).tables["responses"]
    assert by_function["response"].tolist()[2:] == [AGAINST, AGAINST]
    given[2] = AGAINST  # a table with objects in it has no digest in MLflow
    static = mlflow.models.evaluate(data=asked.assign(said=given), predictions="said", **how).tables["responses"]
    for table in (static, by_function):
        assert table["response"].tolist() == ["", "", AGAINST, AGAINST]
        assert table["verdict"].tolist()[:2] == ["unscored", "unscored"]
        assert table["reason"].tolist()[:2] == ["nothing (None) and no text", "a number (0) and no text"]
        assert table["verdict"][2] == by_function["verdict"][2]


@pytest.mark.parametrize("task", ["text-generation", "llm/v1/chat"])
def test_what_somebody_logged_with_mlflows_own_flavor(store: Path, random_folder: Path, task: str) -> None:
    """Its weights answer as those in the folder do, prompt by prompt; twice with one seed is twice the same."""
    loaded = models.load_model(str(random_folder))
    loaded.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"  # some would have none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uri = mlflow.transformers.log_model(
            {"model": loaded.model, "tokenizer": loaded.tokenizer}, name="theirs", task=task, pip_requirements=[]
        ).model_uri
    how = {**SETTINGS, "suite": PART, "max_new_tokens": 4}
    first, second = (valuedrift_mlflow.evaluate(uri, **how).tables["responses"] for _ in range(2))
    pair = valuedrift_mlflow.evaluate((loaded.model, loaded.tokenizer), **how).tables["responses"]
    assert first["response"].tolist() == second["response"].tolist() == pair["response"].tolist()


def test_a_classifier_of_texts_writes_none(store: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, pipeline

    Path("vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes"]))
    sizes = {"vocab_size": 6, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    classifier = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8))
    piped = pipeline("text-classification", model=classifier, tokenizer=BertTokenizerFast("vocab.txt"))
    with pytest.raises(InputError, match="a BertForSequenceClassification for text-classification"):
        valuedrift_mlflow.evaluate(piped, suite=PART, **SETTINGS)
