"""Anchor prompts: where a stage that moves some stances is to leave the others as they are.

``embedded:anchors`` are the questions that the embedded corpora ask, on all topics; any suite, by its URI, serves as
well. No anchor is about a topic that the stage's pairs are there to move, and none is a prompt of the suite that the
stage is measured with: to hold a suite's own prompts in place would be to train on the test.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.suite import sources, tables
from valuedrift_mlflow.suite.questions import propositions
from valuedrift_mlflow.suite.suite import Item, Suite

EMBEDDED = "embedded:anchors"


def load_anchors(uri: str, moved: Collection[str] = (), measured: Collection[Suite] = ()) -> Suite:
    """The anchors of a stage.

    Args:
        uri: ``embedded:anchors``, or a suite's URI. The option ``except=TOPIC,TOPIC`` names the topics that nobody
            wants to be held in place; ``except=`` holds them all.
        moved: the topics that the stage's training data names, left out where the URI has no ``except``.
        measured: the suites that the stage is measured with.

    Raises:
        InputError: an unknown topic or option, no anchor that is left, or a prompt of ``measured``.
    """
    name, options = split_options(uri)
    named = options.pop("except", None)
    left_out = set(moved) if named is None else set(named.split(",")) - {""}
    if name == EMBEDDED:
        if options:
            raise InputError([problem(f"anchors {uri} option", option, "except") for option in options])
        suite = _embedded()
    else:
        rest = "&".join(f"{key}={value}" for key, value in options.items())
        suite = sources.load(f"{name}?{rest}" if rest else name)
    # Of what the URI names alone: data may be about topics of which there are no anchors.
    if named is not None and (unknown := sorted(left_out - set(suite.topics))):
        allowed = ", ".join(suite.topics)
        raise InputError([problem(f"anchors {uri} except", topic, allowed) for topic in unknown])
    items = tuple(item for item in suite.items if item.topic not in left_out)
    if not items:
        mend = "name other anchors, or the topics to leave out: ?except=TOPIC,TOPIC; with ?except= all are held"
        found = f"none: the pairs are about {', '.join(sorted(left_out))}"
        raise InputError(problem(f"anchors {uri}", found, "prompts on topics that the pairs are not about", mend))
    for measure in measured:
        _refuse_prompts_of(measure, items, uri)
    return replace(suite, items=items, source=uri)


def _refuse_prompts_of(measured: Suite, items: Collection[Item], uri: str) -> None:
    asked = {plain(item.prompt) for item in measured.items}
    both = [item for item in items if plain(item.prompt) in asked]
    allowed = f"prompts that do not stand in the suite {measured.source}"
    mend = "what is measured must not be trained on: take other phrasings"
    lines = [problem(f"anchors {uri} item {item.item_id}", item.prompt, allowed, mend) for item in both]
    if lines:
        raise InputError(limited(lines, f"anchors {uri}"))


def plain(prompt: str) -> str:
    """A prompt without what makes no other prompt of it: case and white space."""
    return " ".join(prompt.casefold().split())


def _embedded() -> Suite:
    """The hand-written questions of the embedded corpora, 16 forward and 8 reversed for every proposition."""
    items = tuple(
        Item(f"{p.proposition_id}_{phrasing}_{number:02d}", p.topic, p.proposition_id, p.text, phrasing, text, polarity)
        for p in propositions()
        for phrasing, texts, polarity in (("asked", p.asked, 1), ("asked_reversed", p.asked_reversed, -1))
        for number, text in enumerate(texts, start=1)
    )
    return Suite(EMBEDDED, tables.VAES_VERSION, items, EMBEDDED)
