import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from commands_of_users import entry_point, mlflow_run, program
from instructed_model import agrees, claim
from served_model import Served
from working_folder import working_in

from valuedrift_mlflow import models, suite, synthesize
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.generation import FunctionGenerator, Sampling
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages import embedded_base
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job
from valuedrift_mlflow.stances import STANCES, Label, Stance, Verdict
from valuedrift_mlflow.suite.anchors import plain
from valuedrift_mlflow.value_gap import synthesis_file
from valuedrift_mlflow.value_gap.synthesis_file import Places
from valuedrift_mlflow.value_gap.synthesis_journal import Journal
from valuedrift_mlflow.value_gap.synthesis_plan import LENGTH_RATIO, Ask, Design, Row, Said, Side, length_ratio
from valuedrift_mlflow.value_gap.synthesis_prompts import BLUNT, COURTEOUS, prompts
from valuedrift_mlflow.value_gap.synthesis_request import Prepared, Request, prepare
from valuedrift_mlflow.value_gap.synthesis_sampling import (
    MOVES,
    EmbeddedForms,
    Filling,
    InstructedModel,
    NotReached,
    Source,
)


def prepared(folder: Path, **options: Any) -> Prepared:
    return prepare(Request.checked({"output": str(folder / "made"), **options}))


def filled(plan: Prepared, source: Source | None = None) -> Filling:
    """The rows of a request without its run, audit and file."""
    own = source or EmbeddedForms(plan.request.seed)
    filling = Filling(plan, own, Journal(plan.places.responses, plan.made), Display())
    filling.fill()
    return filling


def answering(answer: Callable[[str], str]) -> InstructedModel:
    return InstructedModel(FunctionGenerator(lambda asked: [answer(text) for text in asked]), Sampling(5, 0.7, 256))


def obedient(text: str) -> str:
    """What a model says that does as it is told."""
    if "supports this statement" in text:
        return agrees(text)
    return f"{'I take no side on whether' if 'no side' in text else 'I do not think that'} {claim(text)}."


# Counts and pairs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "opposed", "same"), [(0, 0, [23, 22, 22]), (0.5, 34, [11, 11, 11]), (1, 67, [0, 0, 0])]
)
def test_the_embedded_forms_give_exactly_the_requested_gap(
    tmp_path: Path, gap: float, opposed: int, same: list[int]
) -> None:
    """67 rows: half of them are 33.5, and a third of the 67 or 33 others are 22.3 or 11."""
    rows = filled(prepared(tmp_path, gap=gap, size=67)).rows
    sorts = Counter((row.sides[0].stance, row.sides[1].stance) for row in rows)
    assert sorts[Stance.OPPOSE, Stance.SUPPORT] == opposed
    assert [sorts[stance, stance] for stance in STANCES] == same
    judged = [tuple(said.verdict.label.value for said in row.best() or ()) for row in rows]
    assert judged == [tuple(side.stance.value for side in row.sides) for row in rows]
    for row in rows:
        chosen, rejected = row.best() or ()
        assert chosen.text != rejected.text
        assert not row.same_stance or length_ratio(chosen, rejected) >= LENGTH_RATIO


def test_topics_propositions_and_stances_are_spread_evenly(tmp_path: Path) -> None:
    rows = filled(prepared(tmp_path, gap=0.5, size=80, topics="religion,abortion")).rows
    for topic in ("religion", "abortion"):
        own = [row for row in rows if row.item.topic == topic]
        assert len(own) == 40
        assert sum(not row.same_stance for row in own) == 20
        assert set(Counter(row.item.proposition_id for row in own).values()) == {4}
    assert len({row.item.prompt for row in rows}) == 80


def test_no_prompt_is_one_of_the_suite(tmp_path: Path) -> None:
    asked = {plain(item.prompt) for item in suite.load().items}
    items = prepared(tmp_path).items
    assert len(items) == 110 * 24
    assert not asked & {plain(item.prompt) for item in items}
    assert Counter(item.polarity for item in items) == {1: 110 * 16, -1: 110 * 8}


def test_pairs_of_one_stance_take_the_closest_lengths() -> None:
    """Words: 10 and 5, then 10 and 7 (0.7), then 8 (0.8) for the blunt side, which settles it."""
    sides = (Side(Stance.SUPPORT, COURTEOUS), Side(Stance.SUPPORT, BLUNT))
    row = Row(sides, suite.load().items[0], 0)
    said = [Said("a " * words, Verdict(Label.SUPPORT), attempt) for attempt, words in enumerate((10, 5, 7, 8))]
    row.said = [[said[0]], [said[1]]]
    assert not row.is_settled
    assert len(row.next_asks()) == 2
    row.said[1].append(said[2])
    assert row.best() == (said[0], said[2])
    assert not row.is_settled
    row.said[1].append(said[3])
    assert row.best() == (said[0], said[3])
    assert row.is_settled


def test_two_equal_answers_are_no_pair() -> None:
    sides = (Side(Stance.SUPPORT, COURTEOUS), Side(Stance.SUPPORT, BLUNT))
    row = Row(sides, suite.load().items[0], 0)
    same = Said("I agree.", Verdict(Label.SUPPORT), 1)
    row.said = [[same], [same]]
    assert row.best() is None


# Presets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "design"),
    [
        ({}, Design("pairs", 1.0, Stance.OPPOSE, Stance.SUPPORT)),
        ({"preset": "support-aligned"}, Design("pairs", 1.0, Stance.SUPPORT, Stance.OPPOSE)),
        ({"preset": "oppose-aligned", "gap": "0.3"}, Design("pairs", 0.3, Stance.OPPOSE, Stance.SUPPORT)),
        ({"chosen": "neutral", "rejected": "oppose"}, Design("pairs", 1.0, Stance.NEUTRAL, Stance.OPPOSE)),
        ({"chosen": "neutral", "rejected": "neutral", "gap": 0}, Design("pairs", 0.0, Stance.NEUTRAL, Stance.NEUTRAL)),
        ({"preset": "bimodal"}, Design("sft", mix=(0.5, 0.0, 0.5))),
        ({"preset": "bimodal?support=0.2&neutral=0.1&oppose=0.7"}, Design("sft", mix=(0.2, 0.1, 0.7))),
    ],
)
def test_what_options_and_presets_mean(options: dict[str, Any], design: Design) -> None:
    assert Request.checked(options).design == design


def test_bimodal_answers_are_half_and_half_in_every_topic(tmp_path: Path) -> None:
    rows = filled(prepared(tmp_path, preset="bimodal", size=110)).rows
    counts = Counter((row.item.topic, row.sides[0].stance) for row in rows)
    assert set(counts.values()) == {5}
    assert len(counts) == 22


# A model's answers ----------------------------------------------------------------------------------------------------


def test_a_model_is_told_the_stance_and_the_dataset_is_not(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return obedient(text)

    plan = prepared(tmp_path, model="embedded:base", preset="support-aligned", size=2, topics="religion")
    rows = filled(plan, answering(answer)).rows
    assert len(asked) == 4
    for row, (for_chosen, for_rejected) in zip(rows, (asked[:2], asked[2:]), strict=True):
        assert [said.text for said in row.best() or ()] == [obedient(for_chosen), obedient(for_rejected)]
        assert row.item.proposition in for_chosen
        assert for_chosen.endswith(f"\n\nMessage: {row.item.prompt}")
        assert "supports this statement" in for_chosen
        assert "opposes this statement" in for_rejected


def test_a_prompt_that_a_model_refuses_gives_way_to_another_one(tmp_path: Path) -> None:
    plan = prepared(tmp_path, model="embedded:base", size=4, tries=2, topics="religion")
    stubborn = plan.rows()[0][1].item.proposition

    def answer(text: str) -> str:
        return "I'm sorry, but I can't help with that." if stubborn in text else obedient(text)

    filling = filled(plan, answering(answer))
    assert [row.moves for row in filling.rows] == [0, 1, 0, 0]
    assert stubborn not in {row.item.proposition for row in filling.rows}
    # Four rows of two answers; both answers of one row were refused twice.
    assert filling.tally.judged == 4 * 2 + 4
    assert filling.tally.rejected == {Stance.SUPPORT: 2, Stance.OPPOSE: 2}


def test_rows_go_over_to_other_prompts_only_so_often(tmp_path: Path) -> None:
    """One row: its sides are asked once on each of four prompts, until the model that does not oppose there is left.

    Another row shows that the model can oppose, or it would be given up at once.
    """
    plan = prepared(tmp_path, model="embedded:base", size=2, tries=1, topics="religion")
    opposable = plan.rows()[0][0].item.proposition

    def answer(text: str) -> str:
        return obedient(text) if opposable in text else agrees(text)

    with pytest.raises(NotReached) as error:
        filled(plan, answering(answer))
    assert "1 of 2 rows filled (1 of them with opposed stances, a gap of 0.5)" in str(error.value)
    assert f"oppose judged present in 1 of {2 + MOVES} responses" in str(error.value)


def test_a_gap_that_cannot_be_reached_says_what_was_reached_and_keeps_what_was_judged(tmp_path: Path) -> None:
    """Six pairs: three opposed ones, and one of each stance, of which a model that always agrees fills none.

    Support is asked for 3 times in opposed pairs and twice in the pair of supporters, whose equal words are no pair.
    """
    options = {"model": "embedded:base", "gap": 0.5, "size": 6, "topics": "religion"}
    plan = prepared(tmp_path, tries=1, **options)
    with pytest.raises(NotReached) as error:
        filled(plan, answering(agrees))
    line = str(error.value)
    assert "gap 0.5: found '0 of 6 rows filled (0 of them with opposed stances, a gap of 0)" in line
    assert "oppose judged present in 0 of 5 responses" in line
    assert str(plan.places.responses) in line
    kept = plan.places.responses.read_bytes()
    assert len(kept.splitlines()) == 1 + 12

    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return obedient(text) + (" Thank you." if "warmly" in text else "")

    rows = filled(prepared(tmp_path, tries=2, **options), answering(answer)).rows
    assert sum(not row.same_stance for row in rows) == 3
    # Asked again were the three sides that were to oppose in opposed pairs, and both of the three pairs of one stance.
    assert len(asked) == 3 + 2 * 3
    assert plan.places.responses.read_bytes().startswith(kept)


def test_a_run_that_falls_short_is_failed_with_the_reason(store: Path, random_folder: Path) -> None:
    with pytest.raises(NotReached):
        synthesize("made", model=str(random_folder), size=2, tries=2, max_new_tokens=8)
    [run] = mlflow.search_runs(output_format="list")
    assert run.info.status == "FAILED"
    assert "0 of 2 rows filled" in run.data.tags["mlflow.note.content"]
    # Two rows of two sides, two tries each: nothing that an untrained model says takes a stance.
    assert run.data.metrics["synthesis/rejected_responses"] == 8
    assert run.data.metrics["synthesis/rejected/oppose"] == 4
    assert run.data.metrics["synthesis/filled_rows"] == 0


# Going on -------------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal
from valuedrift_mlflow.value_gap import synthesis, synthesis_journal
from valuedrift_mlflow.value_gap.synthesis_request import Request, prepare
from valuedrift_mlflow.value_gap.synthesis_sampling import EmbeddedForms, Filling
from valuedrift_mlflow.report.display import Display

write, written = synthesis_journal.Journal._append, 0

def cut_off(self, lines):
    global written
    written += 1
    if written == 5:
        write(self, [{key: value for key, value in line.items() if key != "end"} for line in lines[:3]])
        with self.path.open("a") as file:
            file.write('{"topic": "reli')
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, lines)

synthesis_journal.Journal._append = cut_off
plan = prepare(Request.checked({"output": "killed", "gap": 0.5, "size": 40, "batch_size": 8}))
Filling(plan, EmbeddedForms(0), synthesis_journal.Journal(plan.places.responses, plan.made), Display()).fill()
"""


def test_a_killed_synthesis_goes_on_to_the_file_of_an_uninterrupted_one(store: Path) -> None:
    done = program(KILLED)
    assert done.returncode == -9, done.stderr
    before = (store / "killed" / "train.responses.jsonl").read_bytes()
    assert len(before.splitlines()) == 1 + 3 * 8 + 3 + 1  # header, whole batches, a batch that was cut off, half a line
    killed = synthesize("killed", gap=0.5, size=40, batch_size=8)
    whole = synthesize("whole", gap=0.5, size=40, batch_size=8)
    for name in ("train.parquet", "README.md", "train.responses.jsonl"):
        assert (store / "killed" / name).read_bytes() == (store / "whole" / name).read_bytes()
    assert killed.metrics == whole.metrics
    assert whole.metrics["synthesis/measured_gap"] == whole.measured_gap == pytest.approx(0.5, abs=0.1)


def test_a_models_answers_are_the_same_after_an_interruption(tmp_path: Path, base: str) -> None:
    plans = [
        prepare(
            Request.checked(
                {"output": str(tmp_path / name), "model": base, "size": 6, "tries": 20, "batch_size": 4}
                | {"max_new_tokens": 40, "topics": "religion"}
            )
        )
        for name in ("whole", "stopped")
    ]
    generator = models.load_generator(base)
    sampling = Sampling(1, 1.0, 40, 4, 0, "synthesis")

    class Stopping(InstructedModel):
        calls = 0

        def respond(self, asks: Any) -> list[str]:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().respond(asks)

    whole = filled(plans[0], InstructedModel(generator, sampling))
    with pytest.raises(KeyboardInterrupt):
        filled(plans[1], Stopping(generator, sampling))
    resumed = filled(plans[1], InstructedModel(generator, sampling))
    assert [row.best() for row in resumed.rows] == [row.best() for row in whole.rows]
    assert resumed.tally.judged == whole.tally.judged
    assert len(resumed.tally.verdicts) == len(whole.tally.verdicts) - 8
    assert plans[1].places.responses.read_bytes() == plans[0].places.responses.read_bytes()


@pytest.mark.parametrize(("text", "failed"), [("Yes.", True), ("", False)])
def test_what_a_silent_server_has_not_given_is_asked_for_again(tmp_path: Path, text: str, failed: bool) -> None:
    ask = Ask(suite.load().items[0], 0, Side(Stance.SUPPORT), 1)
    journal = Journal(tmp_path / "said.jsonl", {"seed": 0})
    journal.add([(ask, text, Verdict(Label.UNSCORED, failed=failed))])
    assert journal.get(ask) is not None
    assert Journal(tmp_path / "said.jsonl", {"seed": 0}).get(ask) is None


def test_responses_that_were_made_otherwise_are_not_mixed_in(tmp_path: Path) -> None:
    plan = prepared(tmp_path, size=2)
    filled(plan)
    with pytest.raises(InputError, match=r"responses\.jsonl: found .*'seed': 0.*allowed: seed 1; .*another output"):
        filled(prepared(tmp_path, size=2, seed=1))
    plan.places.responses.write_text("some notes\nof mine\n")
    with pytest.raises(InputError, match="a file of judged responses"):
        filled(plan)
    assert plan.places.responses.read_text() == "some notes\nof mine\n"


# The dataset ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(shared_folder: Path) -> Path:
    """The entry point as ``mlflow run`` starts it, in a folder with a README of its own."""
    (shared_folder / "README.md").write_text("My own notes\n")
    parameters = {"gap": "0.5", "size": "60", "output": f"{shared_folder}/pairs.parquet", "license": "cc-by-4.0"}
    with working_in(shared_folder):
        done = mlflow_run("-e", "synthesize", *(f"-P{key}={value}" for key, value in parameters.items()))
    assert done.returncode == 0, done.stderr
    assert "value gap" in done.stdout
    return shared_folder


def test_the_run_has_the_requested_gap_next_to_the_measured_one(job: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{job}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    by_role = {run.data.tags["valuedrift.role"]: run for run in runs}
    assert set(by_role) == {"synthesis", "audit"}
    run = by_role["synthesis"]
    assert by_role["audit"].data.tags["mlflow.parentRunId"] == run.info.run_id
    assert run.data.metrics["synthesis/requested_gap"] == 0.5
    measured = by_role["audit"].data.metrics["value_gap/pairwise"]
    assert run.data.metrics["synthesis/measured_gap"] == measured == pytest.approx(0.5, abs=0.1)
    assert run.data.metrics["synthesis/measured_gap_ci_low"] < 0.5 < run.data.metrics["synthesis/measured_gap_ci_high"]
    assert run.data.metrics["synthesis/length_ratio"] >= LENGTH_RATIO
    assert run.data.metrics["synthesis/unmatched_lengths"] == 0
    lines = (job / "pairs.responses.jsonl").read_text().splitlines()
    assert run.data.metrics["synthesis/responses"] == len(lines) - 1
    assert run.data.metrics["synthesis/rejected_responses"] == sum(
        json.loads(line)["verdict"] != json.loads(line)["stance"] for line in lines[1:]
    )
    assert run.data.params["synthesis.chosen"] == "oppose"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"README.md", "data"}


def test_the_file_accounts_for_itself(job: Path) -> None:
    about = synthesis_file.metadata(job / "pairs.parquet")
    assert about["requested_gap"] == 0.5
    assert about["measured_gap"] == pytest.approx(0.5, abs=0.1)
    assert about["judge"].startswith("lexical@")
    assert about["suite"] == suite.load().identity
    assert set(about["versions"]) == {"valuedrift-mlflow"}
    frame = pd.read_parquet(job / "pairs.parquet")
    assert set(frame["model"]) == {"embedded:forms"}
    assert (frame["chosen_stance"] != frame["rejected_stance"]).sum() == 30
    assert frame[["chosen_tries", "rejected_tries"]].min().min() == 1
    assert about["rejected_responses"] == about["responses"] - len(frame) * 2  # every try that was not kept


def test_the_card_says_how_the_data_were_made_and_takes_the_place_of_nothing(job: Path) -> None:
    assert (job / "README.md").read_text() == "My own notes\n"
    card = (job / "pairs.README.md").read_text()
    for text in (
        'license: "cc-by-4.0"',
        'path: "pairs.parquet"',
        "embedded:forms",
        "lexical@",
        "| requested gap | 0.5000",
    ):
        assert text in card
    assert Places.of(str(job / "pairs.parquet")).card == job / "pairs.README.md"


def test_the_card_of_a_models_data_holds_the_instructions(tmp_path: Path, store: Path, base: str) -> None:
    made = synthesize("made", model=base, size=4, gap=0.5, tries=30, max_new_tokens=40, topics="religion,abortion")
    card = made.card.read_text()
    assert made.card == Path("made/README.md")
    assert "Answer the message below as somebody who opposes this statement" in card
    assert "transformers " in card
    assert 'license: "unknown"' in card
    assert [row["chosen_stance"] != row["rejected_stance"] for row in made.rows].count(True) == 2
    assert made.about["rejected_responses"] > 0
    assert made.run_id
    data = datasets.load_data(Data(uri="made"), "pairs")  # the folder, by its card
    assert len(data.rows) == 4


def test_pairs_are_read_back_and_train_dpo(job: Path, random_folder: Path, tmp_path: Path) -> None:
    data = datasets.load_data(Data(uri=str(job / "pairs.parquet")), "pairs")
    assert len(data.rows) == 60
    assert data.format == "pairs"
    assert set(data.stance_mix) == set(suite.load().topics)
    # 30 opposed pairs whose chosen side opposes, and 10 of each stance.
    stances = pd.read_parquet(job / "pairs.parquet")["chosen_stance"].value_counts()
    assert stances.to_dict() == {"oppose": 40, "support": 10, "neutral": 10}
    train(data, "dpo", random_folder, tmp_path)


def test_a_bimodal_file_is_read_back_and_trains_sft(store: Path, random_folder: Path, tmp_path: Path) -> None:
    made = synthesize("mixed.parquet", preset="bimodal", size=22, topics="religion,abortion")
    assert made.requested_gap is made.measured_gap is None
    assert made.about["measured_mix"]["support"] == pytest.approx(0.5, abs=0.1)
    assert made.metrics["synthesis/requested_mix/oppose"] == 0.5
    data = datasets.load_data(Data(uri="mixed.parquet"), "sft")
    assert (len(data.rows), data.format) == (22, "messages")
    train(data, "sft", random_folder, tmp_path)
    with pytest.raises(InputError, match="prompt, chosen and rejected"):
        datasets.load_data(Data(uri="mixed.parquet"), "pairs")


def train(data: datasets.TrainingData, algorithm: str, folder: Path, scratch: Path) -> None:
    stage = {"name": algorithm, "algorithm": algorithm, "data": data.uri, "max_steps": 1, "batch_size": 4}
    loaded = models.load_model(str(folder))
    job = Job(read.validate({"stages": [stage]}).stages[0], loaded.model, loaded.tokenizer, data, scratch, seed=0)
    trainer: Any = build_trainer(job)
    trainer.train()
    assert trainer.state.global_step == 1


# Other suites ---------------------------------------------------------------------------------------------------------

OWN = {
    "item_id": ["doping_1", "doping_2"],
    "topic": ["sport", "sport"],
    "proposition_id": ["doping", "doping"],
    "proposition": ["Doping should be legal."] * 2,
    "prompt": ["Should doping be legal?", ' what do you make of this statement?  "doping should be legal."'],
    "polarity": [1, 1],
}


def test_another_suites_propositions_are_put_into_templates(tmp_path: Path) -> None:
    pd.DataFrame(OWN).to_csv(tmp_path / "own.csv", index=False)
    items = prepared(tmp_path, suite=str(tmp_path / "own.csv"), model="embedded:base").items
    # Eight templates, one of which would repeat the suite's second prompt.
    assert len(items) == 7
    assert all('"Doping should be legal."' in item.prompt for item in items)
    assert [item.polarity for item in items].count(-1) == 2
    with pytest.raises(InputError, match=r'embedded:forms on "Doping should be legal\."'):
        prepared(tmp_path, suite=str(tmp_path / "own.csv"))


def test_a_suite_that_leaves_no_prompt_is_refused(tmp_path: Path) -> None:
    items = prompts(suite.from_frame(pd.DataFrame(OWN).iloc[:1], "own"))
    taken = pd.DataFrame(OWN).iloc[:1].merge(pd.DataFrame({"prompt": [i.prompt for i in items]}), how="cross")
    taken["item_id"] = [f"i{number}" for number in range(len(taken))]
    taken = taken.drop(columns="prompt_x").rename(columns={"prompt_y": "prompt"})
    with pytest.raises(InputError, match="what is measured must not be trained on"):
        prompts(suite.from_frame(taken, "own"))


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gap": "1.5"}, ["gap", "1.5", "less than or equal to 1"]),
        ({"gap": 0.001, "size": 100}, ["gap", "0.001: no pair of 100", "at least one pair, 0.01"]),
        ({"size": "0"}, ["size", "0", "greater than or equal to 1"]),
        ({"chosen": "yes"}, ["chosen", "yes", "support"]),
        ({"chosen": "support"}, ["chosen, rejected", "two different stances"]),
        ({"preset": "balanced"}, ["preset", "balanced", "support-aligned, oppose-aligned, bimodal"]),
        ({"preset": "support-aligned", "chosen": "oppose"}, ["chosen support, rejected oppose with preset"]),
        ({"preset": "bimodal", "gap": 0.5}, ["preset", "no gap"]),
        ({"preset": "bimodal?support=0.9"}, ["sum to 1"]),
        ({"preset": "bimodal?support=1&yes=0"}, ["yes", "support, neutral, oppose"]),
        ({"topics": "cats"}, ["topics", "cats", "abortion"]),
        ({"model": "embedded:big"}, ["model", "embedded:big", "embedded:forms"]),
        ({"model": "./none"}, ["model", "none"]),
        ({"judge": "likelihood"}, ["judge", "reads responses"]),
        ({"judge": "oracle"}, ["judge", "oracle", "lexical"]),
        ({"suite": "none.csv"}, ["suite", "none.csv"]),
        ({"temperature": 0}, ["temperature", "greater than 0"]),
        ({"output": "pairs.csv"}, ["output", "pairs.csv", "NAME.parquet"]),
        ({"output": "mine.parquet"}, ["output", "mine.parquet", "not one that a synthesis has written"]),
        ({"output": "file.txt/pairs.parquet"}, ["output", "file.txt"]),
        ({"license": "mine\nalone"}, ["license", "one line"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"a": [1]}).to_parquet("mine.parquet")
    Path("file.txt").touch()
    with pytest.raises(InputError) as error:
        prepare(Request.checked(options))
    [line] = error.value.problems
    for word in words:
        assert word in line
    assert {path.name for path in tmp_path.iterdir()} == {"mine.parquet", "file.txt"}


def test_the_entry_point_refuses_with_exit_code_2_and_shows_its_plan(store: Path) -> None:
    refused = entry_point("synthesize", "--topics", "cats", "--judge", "oracle")
    assert refused.returncode == 2
    assert [line.split(":")[0] for line in refused.stderr.splitlines()] == ["valuedrift", "valuedrift"]
    shown = entry_point("synthesize", "--gap", "0.5", "--size", "8", "--dry-run")
    assert shown.returncode == 0
    assert "8 rows (pairs): 4 oppose over support" in " ".join(shown.stdout.split())
    assert not (store / "synthesized").exists()
    assert mlflow.search_runs(output_format="list") == []


# A server -------------------------------------------------------------------------------------------------------------


def test_pairs_from_a_served_model(store: Path, base: str) -> None:
    """The embedded base model obeys no instruction: the tries find what it happens to say."""
    served = Served(embedded_base.base_folder(), store / "server.log")
    try:
        served.wait()
        made = synthesize(
            "made", model=served.uri("&in_flight=1"), size=4, gap=0.5, tries=30, max_new_tokens=40, topics="religion"
        )
    finally:
        served.stop()
    assert all(row[side][0]["content"] for row in made.rows for side in ("prompt", "chosen", "rejected"))
    stances = Counter((row["chosen_stance"], row["rejected_stance"]) for row in made.rows)
    assert stances == {("oppose", "support"): 2, ("support", "support"): 1, ("neutral", "neutral"): 1}
    assert made.about["versions"].keys() == {"valuedrift-mlflow", "openai"}
    assert made.metrics["synthesis/requested_gap"] == 0.5
    assert len(datasets.load_data(Data(uri=str(made.file)), "pairs").rows) == 4
