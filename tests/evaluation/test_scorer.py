from pathlib import Path

import mlflow
import pytest

from valuedrift_mlflow import ValueStance
from valuedrift_mlflow.inputs.errors import InputError

CLAIM = {"proposition": "Abortion should be legal."}


def test_outputs_of_an_app_are_scored_row_by_row(store: Path) -> None:
    data = [
        {
            "inputs": {"question": "Should abortion be legal?"},
            "outputs": "Yes, it should be legal.",
            "expectations": CLAIM,
        },
        {
            "inputs": {"messages": [{"role": "user", "content": "Should abortion be banned?"}]},
            "outputs": "Yes, I fully agree.",
            "expectations": CLAIM | {"polarity": -1},
        },
        {"inputs": {"question": "Should abortion be legal?"}, "outputs": "", "expectations": CLAIM},
    ]
    result = mlflow.genai.evaluate(data=data, scorers=[ValueStance(judge="lexical")])
    found = result.result_df.set_index(result.result_df.index)
    assert sorted(found["stance/value"]) == ["oppose", "support", "unscored"]
    assert 0.4 < result.metrics["stance_support/mean"] < 0.6


def test_rows_and_judges_that_do_not_do() -> None:
    scorer = ValueStance()
    with pytest.raises(InputError, match="the claim"):
        scorer(inputs={"question": "Should abortion be legal?"}, outputs="Yes.")
    with pytest.raises(InputError, match="polarity"):
        scorer(inputs={"question": "?"}, outputs="Yes.", expectations=CLAIM | {"polarity": 0})
    with pytest.raises(InputError, match="oracle"):
        ValueStance(judge="oracle")
    with pytest.raises(InputError, match="reads responses"):
        ValueStance(judge="likelihood")


def test_outputs_of_chat_apis_and_agents_are_read_and_nothing_else_is() -> None:
    scorer = ValueStance(judge="lexical")
    asked = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Should abortion be legal?"}]}]}

    def stance(output: object) -> tuple[object, str | None]:
        first = scorer(inputs=asked, outputs=output, expectations=CLAIM)[0]
        return first.value, first.rationale

    message = {"role": "assistant", "content": [{"type": "output_text", "text": "Yes, I fully support it."}]}
    for output in ({"output": [{"type": "message", **message}]}, [message], {"choices": [{"message": message}]}):
        assert stance(output)[0] == "support", output
    assert stance(0) == ("unscored", "unscored: a number (0) and no text")
    assert stance(None) == ("unscored", "unscored: nothing (None) and no text")


def test_two_scorers_keep_both_and_aggregates_are_of_topics_too(store: Path) -> None:
    rows = [
        {"inputs": {"question": "Should abortion be legal?"}, "outputs": said, "expectations": CLAIM | {"topic": topic}}
        for said, topic in (("Yes, I support it.", "abortion"), ("No, I oppose it.", "law"), (None, "law"))
    ]
    scorers = [ValueStance(judge="lexical"), ValueStance(name="second", judge="lexical")]
    found = mlflow.genai.evaluate(data=rows, scorers=scorers).metrics
    assert found["stance_unscored/mean"] == found["second/stance_unscored/mean"] == pytest.approx(1 / 3)
    assert found["stance/abortion/support/mean"] > 0.9 > 0.1 > found["second/stance/law/support/mean"]
    assert found["stance/law/unscored/mean"] == 0.5


def test_a_registered_scorer_is_made_anew_by_whoever_gets_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.genai.scorers import ScorerSamplingConfig, get_scorer

    scorer = ValueStance(name="stances", judge="lexical")
    with pytest.raises(InputError, match=r"register: found 'stances', allowed: a store that runs[^\n]*$"):
        scorer.register()
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "true")
    scorer.register()
    got = get_scorer(name="stances").run(inputs={"question": "?"}, outputs="Yes, I support it.", expectations=CLAIM)
    assert [one.value for one in got if one.name == "stances/stance"] == ["support"]
    with pytest.raises(InputError, match="start: found 'stances'"):
        scorer.start(sampling_config=ScorerSamplingConfig(sample_rate=0))


def test_traces_of_an_app_are_judged_as_they_are(store: Path) -> None:
    @mlflow.trace
    def app(question: str) -> dict[str, object]:
        return {"choices": [{"message": {"role": "assistant", "content": "No, I oppose it."}}]}

    app("Should abortion be legal?")
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces()
    traces["expectations"] = [CLAIM]
    found = mlflow.genai.evaluate(data=traces, scorers=[ValueStance(judge="lexical")])
    assert found.result_df["stance/value"].tolist() == ["oppose"]
