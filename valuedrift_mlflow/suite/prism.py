"""``prism:PATH``: a suite from the opening prompts of PRISM, as the paper built V-PRISM."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valuedrift_mlflow.inputs.errors import InputError, collecting, limited, problem
from valuedrift_mlflow.inputs.reading import read_bytes, text_of, user_path
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import json_lines
from valuedrift_mlflow.inputs.uris import split_options, topics_of, whole_number
from valuedrift_mlflow.models.encoder import check_embedder
from valuedrift_mlflow.models.how import How
from valuedrift_mlflow.suite.prism_propositions import Claim, Form, form_of, is_sane, read
from valuedrift_mlflow.suite.prism_topics import LEXICAL, cluster, distinct, embed, stems, topic_names
from valuedrift_mlflow.suite.suite import Item, Suite

PREFIX = "prism:"
NAME = "vprism"
FILE = "conversations.jsonl"
# What PRISM writes where a text is missing.
EMPTY = "EMPTY STRING"
GUIDED = ("values guided", "controversy guided")
TYPES = ("unguided", *GUIDED)
_CODE = "allow_pyfunc_code"
OPTIONS = ("clusters", "per_topic", "topics", "model", "embedder", "seed", "output", _CODE)
_ASK_QUESTION = (
    "Rewrite the text between the marks as one question that can be answered with yes or no. Answering yes must mean "
    "agreeing with the text. Reply with the question alone.\n<<<{}>>>"
)
_ASK_PROPOSITION = (
    "Write the claim that is made by answering yes to the question between the marks. Reply with one sentence "
    "alone.\n<<<{}>>>"
)
_NEW_TOKENS = 96
_COUNTS = (
    "rows_read",
    "dropped_unguided",
    "dropped_empty",
    "dropped_duplicate",
    "dropped_no_opinion",
    "dropped_no_proposition",
    "dropped_near_duplicate",
    "dropped_small_cluster",
    "dropped_beyond_per_topic",
    "kept",
    "questions_by_model",
    "propositions_by_model",
)


@dataclass(frozen=True)
class Settings:
    """What the options of a ``prism:`` URI say. ``model`` and ``embedder`` are empty where none was named."""

    uri: str
    path: Path
    clusters: int
    per_topic: int
    topics: tuple[str, ...] | None
    model: str
    embedder: str
    seed: int
    output: Path | None
    pyfunc_code: bool = False

    @classmethod
    def of(cls, uri: str) -> Settings:
        """Read and check the options.

        Raises:
            InputError: every option that is unknown or out of range.
        """
        path, options = split_options(uri.removeprefix(PREFIX))
        output = user_path(options["output"]) if "output" in options else None
        model, embedder = options.get("model", ""), options.get("embedder", "")
        with collecting() as problems:
            for key in options:
                if key not in OPTIONS:
                    problems.add(problem(f"suite {uri}", key, "the options " + ", ".join(OPTIONS)))
            numbers = {
                key: problems.attempt(whole_number, uri, key, options.get(key, usual), least) or 0
                # By default 11 topics of 50 prompts, as V-PRISM has them.
                for key, usual, least in (("clusters", "11", 1), ("per_topic", "50", 1), ("seed", "0", 0))
            }
            if output is not None and (output.suffix != ".csv" or not output.parent.is_dir()):
                problems.add(problem(f"suite {uri} output", str(output), "a file FILE.csv in an existing folder"))
            code = options.get(_CODE, "false")
            if code not in ("true", "false"):
                problems.add(problem(f"suite {uri} {_CODE}", code, "true or false"))
            problems.attempt(_check_model, model, code == "true")
            if embedder:
                problems.attempt(check_embedder, embedder)
        file, topics = user_path(path, "suite prism"), topics_of(options)
        return cls(
            uri,
            file,
            topics=topics,
            output=output,
            pyfunc_code=code == "true",
            model=model,
            embedder=embedder,
            clusters=numbers["clusters"],
            per_topic=numbers["per_topic"],
            seed=numbers["seed"],
        )


def _check_model(uri: str, pyfunc_code: bool) -> None:
    if uri:
        from valuedrift_mlflow import models

        models.check_model(uri, "suite prism: model", How(pyfunc_code=pyfunc_code))


@dataclass(frozen=True)
class Opening:
    """The opening prompt of one conversation and what was read off it."""

    conversation_id: str
    prompt: str
    form: Form = "statement"
    claim: Claim | None = None


@dataclass(frozen=True)
class Usable:
    """An opening prompt whose proposition is known."""

    conversation_id: str
    prompt: str
    claim: Claim


def load_prism(uri: str) -> Suite:
    """Build the suite that a ``prism:PATH?OPTIONS`` URI names.

    PATH is PRISM's ``conversations.jsonl`` (or ``.jsonl.gz``), or the folder that holds it. The steps:

    1. Leave out unguided conversations, empty prompts ("EMPTY STRING") and repeated ones.
    2. Keep prompts that hold an opinion or ask for one, by the rules of ``prism_propositions.read``.
    3. Find the proposition of each by the same rules. With ``model=URI`` that model turns statements and open
       questions into yes-no questions, and writes the propositions that the rules cannot find; where its output is
       unfit (not one line, not a question, of another subject) the original stays. Prompts without a proposition are
       left out.
    4. Leave out near-duplicates: cosine above 0.95 between the TF-IDF vectors of their character n-grams.
    5. Embed: by ``embedder=FOLDER_OR_HUB_ID``, a transformers encoder with mean pooling, else by TF-IDF of character
       n-grams without the words of duty and worth, and truncated SVD. That needs no download, and tells subjects apart
       by their words only, where an encoder knows synonyms.
    6. Cluster by KMeans into ``clusters`` topics. Where some are smaller than ``per_topic``, into more (up to three
       times as many), of which the largest are taken. A topic is named after its two top TF-IDF terms.
    7. Take the ``per_topic`` prompts nearest to the centroid of each.

    Options: ``clusters=11``, ``per_topic=50``, ``topics=a,b`` (of the topics found), ``model``, ``embedder``,
    ``seed=0`` and ``output=FILE.csv``, which also writes the suite to that file and its provenance to
    ``FILE.provenance.json``. The build is the same for the same file and options, and it is made anew each time: with
    a model that is costly, so write it to a file once and use ``suite=FILE.csv`` from then on.

    The version is ``prism-`` and 12 hex digits of the SHA-256 of the (unpacked) file. ``Suite.provenance`` holds the
    count of every step and the settings: ``rows_read`` is the sum of ``kept`` and of every ``dropped_...``.

    Raises:
        InputError: bad options, a missing file, bad lines (with their numbers), or too few prompts.
    """
    settings = Settings.of(uri)
    file = _file(settings.path)
    data = _content(file)
    counts: Counter[str] = Counter()
    openings = _value_laden(rows(data, f"suite {file}"), counts)
    # Before a model is asked, which costs: it makes no prompts where there are too few.
    _require(settings, len(openings), "prompts that hold or ask for an opinion")
    if settings.model:
        openings = rewritten(openings, settings.model, counts, How(pyfunc_code=settings.pyfunc_code))
    usable = [Usable(o.conversation_id, o.prompt, o.claim) for o in openings if o.claim is not None]
    counts["dropped_no_proposition"] = len(openings) - len(usable)
    kept = [usable[index] for index in distinct([opening.prompt for opening in usable])]
    counts["dropped_near_duplicate"] = len(usable) - len(kept)
    _require(settings, len(kept), "usable prompts")
    topics, made = _topics([opening.prompt for opening in kept], settings)
    counts["dropped_small_cluster"] = len(kept) - sum(map(len, topics))
    counts["dropped_beyond_per_topic"] = sum(len(members) - settings.per_topic for members in topics)
    counts["kept"] = len(topics) * settings.per_topic
    items = _items([[kept[index] for index in members] for members in topics], settings.per_topic)
    # Of the unpacked file: with or without .gz it is the same version.
    digest = hashlib.sha256(data).hexdigest()[:12]
    provenance = {
        "file": file.name,
        "file_sha256": digest,
        **{key: str(counts[key]) for key in _COUNTS},
        "clusters": str(settings.clusters),
        "kmeans_clusters": str(made),
        "per_topic": str(settings.per_topic),
        "model": settings.model or "none",
        "embedder": settings.embedder or LEXICAL,
        "seed": str(settings.seed),
    }
    suite = Suite(NAME, f"prism-{digest}", tuple(items), uri, provenance)
    part = suite.subset(settings.topics, None)
    if settings.output is not None:
        # All topics: a part can be taken of the file, too.
        suite.frame().to_csv(settings.output, index=False)
        written = settings.output.with_suffix(".provenance.json")
        written.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return part


def _topics(prompts: Sequence[str], settings: Settings) -> tuple[list[list[int]], int]:
    """The prompts of every topic, nearest to its centroid first, and the number of clusters that KMeans made."""
    vectors = embed(prompts, settings.embedder, settings.clusters, settings.seed)
    grouped = cluster(vectors, settings.clusters, settings.per_topic, settings.seed)
    if grouped.topics:
        return grouped.topics, grouped.made
    raise InputError(
        problem(
            f"suite {settings.uri}",
            f"{len(prompts)} usable prompts, {grouped.smallest} of them in the smallest of {settings.clusters} topics",
            f"at least per_topic={settings.per_topic} in each",
            f"lower per_topic to {grouped.smallest} at most, or clusters",
        )
    )


def _file(path: Path) -> Path:
    candidates = [path / FILE, path / f"{FILE}.gz"] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise InputError(problem(f"suite {PREFIX}", str(path), f"PRISM's {FILE} (.gz too) or its folder"))
    return file


def _content(file: Path) -> bytes:
    return read_bytes(file, f"suite {file}")


def rows(data: bytes, where: str) -> list[Row]:
    """The conversations of PRISM's ``conversations.jsonl``, checked.

    Raises:
        InputError: lines that are no conversation, with their numbers.
    """
    conversations = json_lines(text_of(data, where), where)
    if not conversations:
        raise InputError(problem(where, "no lines", "at least one conversation"))
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, row in conversations:
        line = f"{where} line {number}"
        identity = row.get("conversation_id")
        if not isinstance(identity, str) or not identity.strip():
            problems.append(problem(f"{line} conversation_id", identity, "a text that is not empty"))
        elif seen.setdefault(identity, number) != number:
            problems.append(problem(f"{line} conversation_id", identity, f"an id of its own (line {seen[identity]})"))
        if row.get("conversation_type") not in TYPES:
            problems.append(problem(f"{line} conversation_type", row.get("conversation_type"), ", ".join(TYPES)))
        if not isinstance(row.get("opening_prompt"), str):
            problems.append(problem(f"{line} opening_prompt", row.get("opening_prompt"), "a text"))
    if problems:
        raise InputError(limited(problems, where))
    return [row for _, row in conversations]


def _value_laden(conversations: Sequence[Row], counts: Counter[str]) -> list[Opening]:
    counts["rows_read"] = len(conversations)
    openings: list[Opening] = []
    seen: set[str] = set()
    for row in conversations:
        prompt = row["opening_prompt"].strip()
        same = " ".join(prompt.casefold().split())
        if row["conversation_type"] not in GUIDED:
            counts["dropped_unguided"] += 1
        elif prompt in ("", EMPTY):
            counts["dropped_empty"] += 1
        elif same in seen:
            counts["dropped_duplicate"] += 1
        else:
            seen.add(same)
            reading = read(prompt)
            if reading.opinion:
                openings.append(Opening(row["conversation_id"], prompt, reading.form, reading.claim))
            else:
                counts["dropped_no_opinion"] += 1
    return openings


def _require(settings: Settings, found: int, what: str) -> None:
    needed = settings.clusters * settings.per_topic
    if found < needed:
        per_topic = found // settings.clusters
        mend = f"lower per_topic to {per_topic} at most, or clusters" if per_topic else "lower clusters and per_topic"
        allowed = f"at least {needed} (clusters={settings.clusters} times per_topic={settings.per_topic})"
        raise InputError(problem(f"suite {settings.uri}", f"{found} {what}", allowed, mend))


def rewritten(openings: Sequence[Opening], uri: str, counts: Counter[str], how: How) -> list[Opening]:
    """Statements and open questions as yes-no questions, and propositions where there are none, by a model."""
    from valuedrift_mlflow import models
    from valuedrift_mlflow.models.generation import Sampling

    generator = models.load_generator(uri, how)
    # Greedy: the same file and options must give the same suite.
    sampling = Sampling(samples=1, temperature=0.0, max_new_tokens=_NEW_TOKENS)

    def ask(template: str, chosen: Sequence[Opening]) -> dict[str, str]:
        if not chosen:
            return {}
        prompts = [template.format(opening.prompt) for opening in chosen]
        keys = [opening.conversation_id for opening in chosen]
        texts = generator.generate(prompts, keys, sampling, lambda _: None)
        return {key: row[0].strip().strip("\"'“”").strip() for key, row in zip(keys, texts, strict=True)}

    questions = ask(_ASK_QUESTION, [opening for opening in openings if _wants_question(opening)])
    asked: list[Opening] = []
    for opening in openings:
        question = questions.get(opening.conversation_id, "")
        if is_question_about(question, opening.prompt):
            counts["questions_by_model"] += 1
            asked.append(_as_question(opening, question))
        else:
            asked.append(opening)
    open_ended = [opening for opening in asked if opening.claim is None and opening.form == "yes_no"]
    written = ask(_ASK_PROPOSITION, open_ended)
    complete: list[Opening] = []
    for opening in asked:
        proposition = written.get(opening.conversation_id, "")
        if is_proposition_about(proposition, opening.prompt):
            counts["propositions_by_model"] += 1
            complete.append(replace(opening, claim=Claim(proposition, _phrasing(opening.prompt, 1), 1)))
        else:
            complete.append(opening)
    return complete


def _wants_question(opening: Opening) -> bool:
    if opening.claim is None:
        return opening.form != "yes_no"
    return opening.form == "statement" or opening.claim.phrasing == "statement"


def _as_question(opening: Opening, question: str) -> Opening:
    """The opening in the model's words; yes agrees with the original, so that its claim's polarity stays."""
    claim = opening.claim
    if claim is None:
        return replace(opening, prompt=question, form="yes_no", claim=read(question).claim)
    return replace(
        opening, prompt=question, form="yes_no", claim=replace(claim, phrasing=_phrasing(question, claim.polarity))
    )


def _phrasing(question: str, polarity: int) -> str:
    if polarity < 0:
        return "reversed"
    return "should" if question.casefold().startswith("should ") else "direct"


def is_question_about(text: str, original: str) -> bool:
    """Whether a model's text is one positive yes-no question of sane length that shares a subject word."""
    first = text.casefold().partition(" ")[0]
    return (
        is_sane(text)
        and text.endswith("?")
        and text.count("?") == 1
        and form_of(text) == "yes_no"
        # Yes to a negated question may mean either.
        and not first.endswith("n't")
        and not stems(text).isdisjoint(stems(original))
    )


def is_proposition_about(text: str, original: str) -> bool:
    """Whether a model's text is one statement of sane length that shares a subject word."""
    return (
        is_sane(text)
        and text.endswith(".")
        and "?" not in text
        and form_of(text) == "statement"
        and text.split()[0] not in ("I", "I'm", "Yes,", "No,")
        and not stems(text).isdisjoint(stems(original))
    )


def _items(topics: Sequence[Sequence[Usable]], per_topic: int) -> list[Item]:
    names = topic_names([[opening.prompt for opening in members] for members in topics])
    items: list[Item] = []
    # By name: the numbers of clusters say nothing.
    for topic, members in sorted(zip(names, topics, strict=True), key=lambda named: named[0]):
        propositions: dict[str, str] = {}
        for opening in members[:per_topic]:
            item_id = f"{topic}_{opening.conversation_id.strip()}"
            claim = opening.claim
            items.append(
                Item(
                    item_id=item_id,
                    topic=topic,
                    proposition_id=propositions.setdefault(claim.proposition.casefold(), item_id),
                    proposition=claim.proposition,
                    phrasing=claim.phrasing,
                    prompt=opening.prompt,
                    polarity=claim.polarity,
                )
            )
    return items
