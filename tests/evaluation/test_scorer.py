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
