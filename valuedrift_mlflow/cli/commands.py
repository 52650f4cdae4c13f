"""The commands: names, flags, recipes.

`valuedrift`, MLproject, the scripts of its entry points and the table of commands are made from this table, so that a
flag stands in one place.

Nothing heavy is imported here: every command shows its help at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valuedrift_mlflow.inputs.shipped import told_of

RESUME = {"resume": "id of a run that was stopped or has failed: it goes on from its last checkpoint"}
_NODES = {
    "nodes": "machines that train every stage together: start the same command on each",
    "rendezvous": "HOST:PORT at which they meet, an address of the first machine",
}
_OF_STAGES = {
    "model": "URI of the model to start from",
    "data": "URI of the training data",
    "reward": "what rates responses: URI of a reward model, or module:function",
    **RESUME,
    **_NODES,
}
# The list as a file: its classes would bring pydantic and more before --help could say a word.
_ALGORITHMS = Path(__file__).parents[1] / "stages" / "algorithms.json"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: the name of the entry point; `valuedrift` takes it with hyphens too.
        purpose: one line, shown by ``--help``.
        about: what it does, in the table of commands.
        recipe: the recipe it runs where ``--recipe`` is not given.
        flags: its own flags with their meanings. An empty value means that the recipe's setting stays.
        defaults: of flags that are not empty where nothing is given.
        examples: command lines, shown by ``--help`` and on top of its script.
        job: the function in ``cli.jobs`` that does it.
        subject: names of what it takes without a flag, with their meanings.
        entry_point: whether MLproject has it too.
        chosen_by: a flag that names one of several things, and
        choices: what each of these is, shown by ``--help`` and in a table.
    """

    name: str
    purpose: str
    about: str
    recipe: str
    flags: Mapping[str, str]
    examples: tuple[str, ...]
    job: str
    defaults: Mapping[str, str] = field(default_factory=dict)
    subject: Mapping[str, str] = field(default_factory=dict)
    entry_point: bool = True
    chosen_by: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def spoken(self) -> str:
        """The name as `valuedrift` shows it: ``check-judge``."""
        return self.name.replace("_", "-")


def _stage(name: str, purpose: str, about: str, flags: Sequence[str], example: str) -> Command:
    """A command that runs one stage as a run of its own."""
    examples = (
        f"mlflow run . --env-manager local -e {name}" + (" -P model=models:/assistant/1" if "model" in flags else ""),
        f"valuedrift {name.replace('_', '-')} {example}",
    )
    return Command(name, purpose, about, name, {flag: _OF_STAGES[flag] for flag in flags}, examples, "stage_job")


def _stages() -> Iterator[Command]:
    """The commands of the algorithms, each as its class says of itself."""
    for name, told in json.loads(_ALGORITHMS.read_text(encoding="utf-8")).items():
        yield _stage(name, told["purpose"], told["about"], told["flags"], told["example"])


COMMANDS: tuple[Command, ...] = (
    Command(
        name="main",
        purpose="Train, checkpoint and measure a post-training pipeline.",
        about="base model, then every stage of the recipe, each a nested run, measured at every checkpoint",
        recipe="embedded",
        flags={
            "register": "NAME or NAME@ALIAS: register the last stage's model with its stance card",
            **RESUME,
            **_NODES,
        },
        examples=(
            "mlflow run . --env-manager local",
            'valuedrift main --recipe embedded --set "samples=2 dpo.beta=0.2"',
            "valuedrift main --recipe llama-3.1-8b --dry-run",
        ),
        job="main_job",
    ),
    *_stages(),
    Command(
        name="ablate",
        purpose="Compare what changes the stances, one thing at a time.",
        about="data doses crossed with algorithms and seeds, keys over lists of values, stages left out",
        recipe="ablate",
        flags={"design": "one or more, with commas: names in entrypoints/designs, or YAML files", **RESUME},
        defaults={"design": "algorithms"},
        chosen_by="design",
        choices=told_of("designs"),
        examples=(
            "mlflow run . --env-manager local -e ablate -P design=algorithms",
            'valuedrift ablate --recipe embedded --design stages --set "samples=2"',
            "valuedrift ablate --design dose,mix --dry-run",
            "valuedrift ablate --design algorithms --resume RUN_ID",
        ),
        job="ablate_job",
    ),
    Command(
        name="evaluate",
        purpose="Measure the stances of a model.",
        about="stances of any model or of existing responses, optionally the drift from a baseline",
        recipe="evaluate",
        flags={
            "model": "URI of the model",
            "baseline": "URI of the model to measure drift from, or a table of its responses",
            "suite": "suite URI",
            "judge": "judge URI; several, comma separated, form a panel",
            "samples": "responses a prompt",
            "responses": "a table of responses to judge instead of asking a model",
            "labels": "people's labels of some of the responses: files, comma separated, or runs:/RUN_ID of a reviewed "
            "run; or runs:/RUN_ID of a check_judge run, to take the judge's errors there off",
            "reference": "stances to measure the distance from: a file (topic, proposition or item_id; support, "
            "neutral, oppose; n), or runs:/RUN_ID",
        },
        examples=(
            "mlflow run . --env-manager local -e evaluate -P model=models:/assistant/2 -P baseline=models:/assistant/1",
            "valuedrift evaluate --responses runs:/RUN_ID/responses.json --judge lexical,openai:/gpt-4o",
            'valuedrift evaluate --model embedded:base --suite "vaes?topics=religion" --samples 3',
            "valuedrift evaluate --responses runs:/RUN_ID/responses.json --labels review-RUN_ID.csv",
        ),
        job="evaluate_job",
    ),
    Command(
        name="compare",
        purpose="Compare models, checkpoints, runs and tables of responses.",
        about="any number of models, registry versions, checkpoints, runs and tables of responses against one of them",
        recipe="evaluate",
        flags={
            "targets": "comma separated: models:/NAME/1, models:/NAME@ALIAS, RUN_ID (a pipeline: all its stages), "
            "runs:/RUN_ID/checkpoints/step-000020, tables of responses, folders, hub ids",
            "baseline": "what the others are held against; the first target where it is empty",
            "judge": "judge URI: responses that another one has judged are judged again; theirs where it is empty",
            "suite": "suite URI; that of the first target that was measured where it is empty",
        },
        examples=(
            "mlflow run . --env-manager local -e compare -P targets=models:/assistant/1,models:/assistant@champion",
            "valuedrift compare --targets RUN_ID,OTHER_RUN_ID --baseline embedded:base",
            "valuedrift compare --targets before.csv,after.csv --judge openai:/gpt-4o",
        ),
        job="compare_job",
    ),
    Command(
        name="gate",
        purpose="Let a model pass only if it has not drifted from its baseline.",
        about="a comparison with an exit code for CI: 0 within the bound, 1 drifted, 2 bad input, 3 cannot tell",
        recipe="evaluate",
        flags={
            "baseline": "what the model must not have drifted from, such as models:/NAME@champion",
            "max-drift": "the largest net drift that may be, between 0 and 1",
            "topics": "what is checked: topics, comma separated, and `overall`; overall and every topic where it is "
            "empty",
            "judge": "judge URI: responses that another one has judged are judged again; theirs where it is empty",
            "suite": "suite URI; that of the first side that was measured where it is empty",
            "alias": "alias that the registered model gets where it passes",
            "junit": "file for the outcome as JUnit XML",
            "json": "file for the outcome as JSON",
        },
        defaults={"max-drift": "0.1"},
        examples=(
            "valuedrift gate models:/assistant@candidate --baseline models:/assistant@champion --max-drift 0.1",
            "valuedrift gate models:/assistant@candidate --baseline models:/assistant@champion --topics overall "
            "--alias champion --junit gate.xml",
        ),
        job="gate_job",
        subject={"model": "the model: any target of compare"},
        entry_point=False,
    ),
    Command(
        name="review",
        purpose="Draw responses of a run for people to label.",
        about="a sample of a run's responses for people to label: a csv file, and traces in MLflow's review UI",
        recipe="evaluate",
        flags={
            "n": "how many responses",
            "steps": "which steps: all, or numbers, comma separated; the first and the last where it is empty",
            "output": "the csv file; review-RUN.csv where it is empty",
        },
        defaults={"n": "120"},
        examples=(
            "valuedrift review RUN_ID --n 120",
            "valuedrift evaluate --responses runs:/RUN_ID/responses.json --labels review-RUN_ID.csv",
        ),
        job="review_job",
        subject={"run_id": "id of the run: an evaluation or a stage"},
        entry_point=False,
    ),
    Command(
        name="replay",
        purpose="Deliver what a job could not write to its tracking server.",
        about="the writes of a job whose tracking server stayed away, from the folder that the job has named",
        recipe="evaluate",
        flags={},
        examples=(
            "valuedrift replay .valuedrift/spool-RUN_ID-4711",
            "valuedrift replay .valuedrift/spool-RUN_ID-4711 --dry-run",
        ),
        job="replay_job",
        subject={"folder": "the folder, as the job's last line names it"},
        entry_point=False,
    ),
    Command(
        name="check_judge",
        purpose="Check a judge against labelled answers.",
        about="accuracy, kappa, coverage and calibration of a judge on labelled answers",
        recipe="evaluate",
        flags={
            "judge": "judge URI",
            "data": "labelled answers: check and real (those of the package), csv, jsonl or parquet files, folders of "
            "them; several separated by commas",
        },
        examples=(
            "mlflow run . --env-manager local -e check_judge -P judge=lexical",
            "valuedrift check-judge --judge openai:/gpt-4o --data labelled.csv",
        ),
        job="check_judge_job",
    ),
    Command(
        name="train_judge",
        purpose="Train a stance classifier, a judge of your own.",
        about="a stance classifier from labelled answers or another judge's verdicts, calibrated, checked, registered",
        recipe="evaluate",
        flags={
            "data": "labelled answers; with a teacher a table of responses, such as runs:/RUN_ID/responses.json",
            "teacher": "URI of the judge whose verdicts are the labels",
            "model": "the encoder to start from: a folder or hub id",
            "register": "name of the registered model that it becomes a version of",
        },
        examples=(
            "mlflow run . --env-manager local -e train_judge -P data=labelled.csv -P model=roberta-base",
            "valuedrift train-judge --data runs:/RUN_ID/responses.json --teacher openai:/gpt-4o --model ENCODER",
            "valuedrift evaluate --model models:/assistant/2 --judge hf:models:/stance-judge/1",
        ),
        job="train_judge_job",
    ),
    Command(
        name="log_judge",
        purpose="Log a judge as a model of MLflow.",
        about="a judge as a model that scores any table: in batch jobs, on Spark, served",
        recipe="evaluate",
        flags={
            "judge": "judge URI",
            "name": "name of the model in its run",
            "register": "name of the registered model that it becomes a version of",
        },
        defaults={"judge": "lexical", "name": "judge"},
        examples=(
            "valuedrift log-judge --judge lexical --register stance-judge",
            "valuedrift log-judge --judge hf:FOLDER --name encoder",
        ),
        job="log_judge_job",
        entry_point=False,
    ),
    Command(
        name="audit",
        purpose="Audit a dataset.",
        about="what a dataset will do to values: the stances of its responses, and the value gap of preference pairs",
        recipe="audit",
        flags={
            "data": "URI of the data, in place of those of the recipe's one stage",
            "judge": "judge URI",
            "labels": "people's labels of some rows: a file such as the sheet of an audit (runs:/RUN_ID/to_label.csv), "
            "filled",
            "embedder": "sentence encoder that finds rows beside their words: minilm (extra embeddings), a folder, "
            "a hub id",
            "topics": "discover: find contested questions that the suite does not have, and audit those too",
            "output": "the suite file that topics=discover writes; topics.csv where it is empty",
            "model": "URI of a model that words the propositions of topics=discover",
            "engine": "where rows are matched and judged: local, or spark (extra spark)",
        },
        defaults={"engine": "local"},
        examples=(
            "mlflow run . --env-manager local -e audit -P data=pairs.jsonl",
            'valuedrift audit --data hh.jsonl.gz --embedder minilm --set "dpo.data.on_bad_row=skip"',
            "valuedrift audit --data pairs.jsonl --topics discover --output topics.csv",
        ),
        job="audit_job",
    ),
    Command(
        name="attribute",
        purpose="Find the training rows that moved the stances.",
        about="which training rows moved the stances of a topic or along an axis: every row's influence by gradients, "
        "and the data set without the first rows",
        recipe="evaluate",
        flags={
            "run": "id of a stage's run, or of a pipeline's",
            "topics": "topics, and axes as axis/NAME, comma separated; those that moved in the run where it is empty",
            "stage": "the stage of a pipeline; every one that learns from rows where it is empty",
            "drop": "share of the rows that the data set without the first rows leaves out; 0.02 where it is empty",
            "bound": "instead of a share: leave out the rows with more influence than this, in nats of log-odds",
            "checkpoints": "the most steps at which gradients are taken, the first and the last among them",
            "projection": "length to which gradients are projected at random; 0 for exact inner products",
            "measure": "answers: the leaning of the answers that the run has judged; choice: log-odds of a forced "
            "choice; auto: answers where the run has some",
            "normalise": "adam (gradients as the optimizer scaled them), none, or cosine",
        },
        defaults={"checkpoints": "11", "projection": "0", "measure": "auto", "normalise": "adam"},
        examples=(
            "mlflow run . --env-manager local -e attribute -P run=RUN_ID -P topics=abortion",
            "valuedrift attribute --run RUN_ID --topics abortion,axis/gal_tan --drop 0.02",
            "valuedrift attribute --run RUN_ID --stage dpo --dry-run",
        ),
        job="attribute_job",
    ),
    Command(
        name="synthesize",
        purpose="Make a dataset with a value gap.",
        about="preference pairs with a requested value gap, or answers with a requested mix of stances",
        recipe="synthesize",
        flags={
            "model": "URI of the model that answers; embedded:forms composes answers without one",
            "gap": "share of pairs with opposed stances, from 0 to 1",
            "chosen": "stance of the chosen side of opposed pairs: support, neutral, oppose",
            "rejected": "stance of the rejected side of opposed pairs",
            "preset": "support-aligned, oppose-aligned (sides of the pairs), or bimodal (SFT rows; "
            "?support=0.5&oppose=0.5)",
            "topics": "topics of the suite, comma separated; all where it is empty",
            "size": "rows",
            "output": "a file NAME.parquet, or a folder for train.parquet (synthesized); the dataset card is written "
            "beside it",
            "judge": "URI of the judge that says which stance is present",
            "seed": "seed of prompts, pairing and sampling",
            "tries": "responses sampled for each side of a row, at most, before another prompt is taken",
            "partial": "true: where some rows cannot be filled, write those that could and say so; an error otherwise",
            "license": "licence of the dataset, for its card",
        },
        examples=(
            "mlflow run . --env-manager local -e synthesize -P gap=0.5 -P size=1000 -P output=pairs.parquet",
            "valuedrift synthesize --model openai:/qwen2.5-72b --preset support-aligned",
            'valuedrift synthesize --preset "bimodal?support=0.6&oppose=0.4" --topics religion,abortion --output mixed',
        ),
        job="synthesize_job",
    ),
)

ENTRY_POINTS = tuple(own for own in COMMANDS if own.entry_point)


def command(name: str) -> Command:
    """The command of this name, with hyphens or underscores.

    Raises:
        KeyError: there is none.
    """
    return {own.name: own for own in COMMANDS}[name.replace("-", "_")]
