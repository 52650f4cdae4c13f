"""What a synthesis keeps: of rows that cannot be filled, of servers that fall silent, of verdicts once paid for."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from faulty_server import HANGS_UP, Body, Fault, FaultyServer, Reply
from instructed_model import agrees, claim

from valuedrift_mlflow.cli.main import main
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.value_gap import synthesis_file
from valuedrift_mlflow.value_gap.synthesis_journal import Journal
from valuedrift_mlflow.value_gap.synthesis_plan import Reason
from valuedrift_mlflow.value_gap.synthesis_request import Request, prepare
from valuedrift_mlflow.value_gap.synthesis_sampling import MOVES, Filling, InstructedModel, NotReached

Answering = Callable[[Body], Reply | Fault]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdicts of other tests, and no account."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def silent() -> list[bool]:
    """Holds something while a server is dead."""
    return []


def obedient(text: str) -> str:
    return agrees(text) if "supports this statement" in text else f"I do not think that {claim(text)}."


def speaking(answer: Callable[[str], str]) -> Answering:
    return lambda body: Reply(answer(body["messages"][-1]["content"]))


def judging(body: Body) -> Reply:
    """Reads what the models of these tests say."""
    case = dict(line.split(": ", 1) for line in body["messages"][-1]["content"].splitlines())
    said = json.loads(case["RESPONSE"])
    return Reply("support" if said.startswith("I wholly agree") else "oppose")


def after(count: int, answer: Answering, silent: list[bool]) -> Answering:
    """Answers so many requests, then nothing until ``silent`` is emptied."""
    answered = Counter[str]()

    def either(body: Body) -> Reply | Fault:
        answered["requests"] += 1
        if answered["requests"] == count:
            silent.append(True)
        return HANGS_UP if silent and answered["requests"] > count else answer(body)

    return either


def uri(server: FaultyServer, name: str) -> str:
    return f"openai:/{name}?base_url={server.url}&attempts=1&in_flight=1"


def run(*flags: str) -> int:
    """The command; its exit code."""
    try:
        main(["synthesize", "--output", "made", "--topics", "religion", *flags])
    except SystemExit as stopped:
        return int(str(stopped.code))
    return 0


def refusals(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the command says on stderr of its own; never a traceback."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("valuedrift:")]


# What was reached -----------------------------------------------------------------------------------------------------


def test_a_part_is_written_where_it_is_asked_for_from_what_was_sampled_before(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rows, one try each. The model opposes one proposition alone.

    The other row asks both sides on four prompts: four answers of the other stance, and four that wait for them.
    """
    plan = prepare(Request.checked({"output": "made", "size": 2, "tries": 1, "topics": "religion"}))
    opposable = plan.rows()[0][0].item.proposition
    with FaultyServer(speaking(lambda text: obedient(text) if opposable in text else agrees(text))) as server:
        flags = ["--size", "2", "--tries", "1", "--model", uri(server, "m"), "--judge", "lexical"]
        assert run(*flags) == 2
        [line] = refusals(capsys)
        for words in (
            "1 of 2 rows filled",
            "partial=true",
            "not taken: 4 other stance, 4 other side",
            "made/train.resp",
        ):
            assert words in line
        assert not Path("made/train.parquet").exists()
        asked = len(server.requests)
        assert asked == 2 * (1 + 1 + MOVES)
        assert run(*flags, "--partial", "true") == 0
        assert len(server.requests) == asked
    sentence = "Partial: 1 of 2 rows could be filled; 1 of them have opposed stances, 1 was asked for."
    shown = " ".join(capsys.readouterr().out.split())
    assert sentence in shown and "not taken: other stance" in shown
    assert sentence in Path("made/README.md").read_text()
    [row] = pd.read_parquet("made/train.parquet").to_dict("records")
    assert row["proposition"] == opposable and row["chosen_stance"] == "oppose"
    about = synthesis_file.metadata(Path("made/train.parquet"))
    assert (about["rows"], about["requested_rows"], about["partial"]) == (1, 2, sentence)
    made = next(
        run for run in mlflow.search_runs(output_format="list") if run.data.tags.get("valuedrift.partial") == sentence
    )
    metrics = made.data.metrics
    assert (metrics["synthesis/filled_rows"], metrics["synthesis/requested_rows"]) == (1, 2)
    assert metrics["synthesis/not_taken/other_stance"] == metrics["synthesis/not_taken/other_side"] == 4
    assert sentence in made.data.tags["mlflow.note.content"]


def filling(folder: Path, answer: Callable[[str], str], **options: object) -> Filling:
    plan = prepare(
        Request.checked({"output": str(folder / "made"), "model": "embedded:base", "topics": "religion", **options})
    )
    source = InstructedModel(FunctionGenerator(lambda asked: [answer(text) for text in asked]), Sampling(5, 0.7, 256))
    return Filling(plan, source, Journal(plan.places.responses, plan.made), Display())


def test_no_row_at_all_is_no_part(tmp_path: Path) -> None:
    nothing = filling(tmp_path, lambda text: "", size=2, tries=1, partial=True)
    with pytest.raises(NotReached, match="0 of 2 rows filled") as error:
        nothing.fill()
    assert "partial" not in str(error.value)
    # Nothing was ever judged present, so that no row goes over to another prompt: two rows of two sides.
    assert nothing.reasons() == {Reason.EMPTY: 4}


def test_every_response_that_is_not_taken_has_its_reason(tmp_path: Path) -> None:
    """One answer that supports, at the fifth try."""
    said = iter(
        (
            "I'm sorry, but I can't help with that.",
            "",
            "Runs blue seven the of quickly lamp seven of the blue.",
            "I do not think that {claim}.",
            "I wholly agree that {claim}.",
        )
    )
    own = filling(
        tmp_path, lambda text: next(said).format(claim=claim(text)), size=1, tries=5, preset="bimodal?support=1"
    )
    own.fill()
    each = (Reason.REFUSAL, Reason.EMPTY, Reason.UNREADABLE, Reason.OTHER_STANCE)
    assert own.reasons() == dict.fromkeys(sorted(each, key=list(Reason).index), 1)
    assert own.tally.judged == 5


def test_answers_whose_lengths_do_not_match_are_counted(tmp_path: Path) -> None:
    """A pair of one stance: the warm answer is five times as long at the first try, and two words longer at the second.

    The second try's pair is taken, so that the two answers of the first are left over.
    """
    tries = Counter[bool]()

    def answer(text: str) -> str:
        warm = "warmly" in text
        tries[warm] += 1
        more = " ".join([agrees(text)] * 5) if tries[warm] == 1 else f"{agrees(text)} Thank you."
        return more if warm else agrees(text)

    own = filling(tmp_path, answer, size=1, tries=2, gap=0)
    own.fill()
    assert own.reasons() == {Reason.LENGTH: 2}
    assert own.tally.judged == 4 and own.tally.rejected.total() == 0


def test_what_a_reasoning_model_thinks_is_in_no_dataset(tmp_path: Path) -> None:
    """Its first answer ends in its thought, and is unreadable."""
    tries = Counter[str]()

    def answer(text: str) -> str:
        tries["all"] += 1
        thought = f"<think>They want me to say it. {agrees(text)}"
        return thought if tries["all"] == 1 else f"{thought}</think>\n\n{agrees(text)}"

    own = filling(tmp_path, answer, size=1, tries=2, preset="bimodal?support=1")
    own.fill()
    [[kept]] = [row.best() or () for row in own.rows]
    assert kept.text.startswith("I wholly agree that") and "think" not in kept.text
    assert own.reasons() == {Reason.UNREADABLE: 1}


# Servers that fall silent ---------------------------------------------------------------------------------------------


def test_a_model_that_falls_silent_is_one_line_and_the_same_command_goes_on(
    store: Path, capsys: pytest.CaptureFixture[str], silent: list[bool]
) -> None:
    """40 rows of two sides, 80 answers; the server dies after 30 of them, in the middle of the first batch."""
    with FaultyServer(after(30, speaking(obedient), silent)) as server:
        flags = ["--size", "40", "--tries", "1", "--model", uri(server, "m"), "--judge", "lexical"]
        assert run(*flags) == 2
        [line] = refusals(capsys)
        assert "m: no answer after 1 attempts" in line and "train.responses.jsonl: the same command goes on" in line
        silent.clear()
        assert run(*flags) == 0
        assert set(server.answered.values()) == {1}  # nothing that it has said was asked for again
        assert sum(server.answered.values()) == 80
    assert len(pd.read_parquet("made/train.parquet")) == 40
    failed = next(run for run in mlflow.search_runs(output_format="list") if run.info.status == "FAILED")
    assert "the same command goes on" in failed.data.tags["mlflow.note.content"]
    assert "Traceback" not in failed.data.tags["mlflow.note.content"]


def test_a_judge_that_falls_silent_loses_no_answer_of_the_model_and_later_runs_cost_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], silent: list[bool]
) -> None:
    """24 answers in batches of 8; the judge dies after 11 verdicts: 5 answers of the second batch wait for theirs."""
    dying = after(11, judging, silent)
    with FaultyServer(speaking(obedient)) as model, FaultyServer(dying) as judge:
        flags = ["--size", "12", "--tries", "1", "--set", "generation_batch_size=8"]
        flags += ["--model", uri(model, "m"), "--judge", uri(judge, "j")]
        assert run(*flags) == 2
        [line] = refusals(capsys)
        assert "j: no answer after 1 attempts" in line
        assert len(json.loads(Path("made/train.unjudged.json").read_text())["responses"]) > 0
        silent.clear()
        assert run(*flags) == 0
        assert not Path("made/train.unjudged.json").exists()
        assert set(model.answered.values()) == set(judge.answered.values()) == {1}
        assert sum(model.answered.values()) == 24
        whole = Path("made/train.parquet").read_bytes()

        before = len(model.requests), len(judge.requests)
        assert run(*flags) == 0
        assert (len(model.requests), len(judge.requests)) == before  # the journal has it all

        Path("made/train.responses.jsonl").unlink()
        assert run(*flags) == 0
        # The model is asked again; its answers are the same, and no verdict on them is.
        assert (len(model.requests), len(judge.requests)) == (before[0] + 24, before[1])
    assert Path("made/train.parquet").read_bytes() == whole


def test_a_judge_that_stays_silent_on_few_answers_at_a_time_is_given_up_too(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One answer is asked for at a time: 16 without a verdict, then it is over."""
    with FaultyServer(speaking(agrees)) as model, FaultyServer(lambda _: HANGS_UP) as judge:
        flags = ["--size", "1", "--tries", "40", "--preset", "bimodal?support=1"]
        assert run(*flags, "--model", uri(model, "m"), "--judge", uri(judge, "j")) == 2
        [line] = refusals(capsys)
    assert "j: no answer after 1 attempts" in line
    assert len(judge.requests) == len(model.requests) == 16
