import pytest

from valuedrift_mlflow import judges
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.panel import joint
from valuedrift_mlflow.stances import REFUSAL, UNSCORED, Label, Spent, Verdict

SUPPORT, OPPOSE = Verdict.of((0.8, 0.2, 0.0)), Verdict.of((0.0, 0.4, 0.6))


def opinions(*verdicts: Verdict) -> tuple[tuple[str, Verdict], ...]:
    return tuple((f"judge {index}", verdict) for index, verdict in enumerate(verdicts))


@pytest.mark.parametrize(
    ("verdicts", "label", "probabilities"),
    [
        ((SUPPORT, OPPOSE), Label.SUPPORT, (0.4, 0.3, 0.3)),
        ((SUPPORT, UNSCORED), Label.SUPPORT, (0.8, 0.2, 0.0)),  # who cannot tell abstains
        ((UNSCORED, UNSCORED), Label.UNSCORED, None),
        ((REFUSAL, UNSCORED), Label.REFUSAL, None),
        ((REFUSAL, SUPPORT), Label.UNSCORED, None),  # one against one
        ((REFUSAL, REFUSAL, SUPPORT), Label.REFUSAL, None),
        ((REFUSAL, SUPPORT, SUPPORT), Label.SUPPORT, (0.8, 0.2, 0.0)),
    ],
)
def test_the_joint_verdict(
    verdicts: tuple[Verdict, ...], label: Label, probabilities: tuple[float, ...] | None
) -> None:
    found = joint(opinions(*verdicts))
    assert found.label is label
    assert found.probabilities == (None if probabilities is None else pytest.approx(probabilities))
    assert [verdict for _, verdict in found.opinions] == list(verdicts)


def test_a_panel_costs_what_its_members_cost_now() -> None:
    paid = Verdict(Label.SUPPORT, (1.0, 0.0, 0.0), spent=Spent(1, 100))
    earlier = Verdict(Label.SUPPORT, (1.0, 0.0, 0.0), spent=Spent(1, 70), cached=True)
    assert joint(opinions(paid, earlier)).spent == Spent(1, 100)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("lexical,lexical", "every member of a panel once"),
        ("lexical,likelihood", "likelihood alone"),
        ("lexical,oracle", "oracle"),
        ("", "lexical, hf:"),
        ("openai:/", "openai:/MODEL"),
        ("hf:", "hf:FOLDER"),
    ],
)
def test_uris_that_name_no_judge(uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        judges.load(uri)


def test_every_wrong_member_is_named() -> None:
    with pytest.raises(InputError) as error:
        judges.load("oracle,lexical,prophet")
    assert len(error.value.problems) == 2
