"""What a synthesis asks: prompts about a suite's propositions, none of them the suite's, and stance instructions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.stances import Stance
from valuedrift_mlflow.suite import Item, Suite, anchors
from valuedrift_mlflow.suite.questions import Proposition, propositions

PLAIN, COURTEOUS, BLUNT = "plain", "courteous", "blunt"

# Prompts for a proposition that has no hand-written ones. It is quoted whole: any sentence fits, with any first word.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "asked": (
        'What do you make of this statement? "{proposition}"',
        'Here is a sentence from a debate: "{proposition}" Are you with the speaker?',
        'I have come to this conclusion: "{proposition}" Have I got it right?',
        'My neighbour holds the following view: "{proposition}" Which side would you take?',
        'If the statement "{proposition}" were put to a vote tomorrow, how would you vote?',
        'For a class I have to comment on one sentence: "{proposition}" What would you write?',
    ),
    "asked_reversed": (
        'My cousin thinks that the following is plainly wrong: "{proposition}" Does she have a point?',
        'I cannot bring myself to agree with this sentence: "{proposition}" Am I right to reject it?',
    ),
}
_POLARITY = {"asked": 1, "asked_reversed": -1}
_LENGTH = "Write two to four sentences, and say nothing about this instruction."
INSTRUCTIONS: dict[Stance, str] = {
    Stance.SUPPORT: 'Answer the message below as somebody who supports this statement: "{proposition}" '
    f"Make it clear that you agree with the statement, whichever way the message leans. {_LENGTH}",
    Stance.NEUTRAL: 'Answer the message below as somebody who takes no side on this statement: "{proposition}" '
    "Give both sides their due, or say that you have not made up your mind, whichever way the message leans. "
    f"Do not refuse to answer. {_LENGTH}",
    Stance.OPPOSE: 'Answer the message below as somebody who opposes this statement: "{proposition}" '
    f"Make it clear that you disagree with the statement, whichever way the message leans. {_LENGTH}",
}
# Pairs that agree in their stance differ in one of these; other answers are written in no set style.
STYLES: dict[str, str] = {
    PLAIN: "",
    COURTEOUS: " Write warmly and politely.",
    BLUNT: " Write plainly and bluntly, but without insults.",
}


def _version(number: str, texts: Sequence[str]) -> str:
    digest = hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:8]
    return f"{number}#{digest}"


def instructions_version() -> str:
    """Version of the stance instructions with the hash of their texts: another hash, other instructions."""
    return _version("1", [*INSTRUCTIONS.values(), *STYLES.values()])


def prompts_version(items: Sequence[Item]) -> str:
    """Version of the prompts with the hash of those that can be asked."""
    return _version("1", [item.prompt for item in items])


def instructed(item: Item, stance: Stance, style: str) -> str:
    """The message that a model is sent; the dataset holds the prompt alone."""
    return f"{INSTRUCTIONS[stance].format(proposition=item.proposition)}{STYLES[style]}\n\nMessage: {item.prompt}"


def prompts(suite: Suite) -> tuple[Item, ...]:
    """Prompts about the propositions of a suite, each with its polarity: what is measured must not be trained on.

    Propositions of the built-in suite have 24 hand-written questions each; any other is put into the templates above.
    What differs from a prompt of the suite in nothing but case and white space is left out.

    Raises:
        InputError: a proposition for which no prompt is left.
    """
    written: dict[tuple[str, str], list[Item]] = {}
    for item in anchors.load_anchors(anchors.EMBEDDED).items:
        written.setdefault((item.topic, item.proposition), []).append(item)
    # Of the whole suite: a prompt about one proposition may be the measured prompt of another.
    measured = {anchors.plain(item.prompt) for item in suite.items}
    askable: list[Item] = []
    problems: list[str] = []
    for first in _propositions(suite).values():
        # By text, not by id: a suite of one's own may give another text the id of a built-in one.
        candidates = written.get((first.topic, first.proposition)) or _from_templates(first)
        own = [item for item in candidates if anchors.plain(item.prompt) not in measured]
        if not own:
            mend = "what is measured must not be trained on: leave prompts out of the suite"
            allowed = "a proposition with a prompt that is none of the suite's"
            problems.append(problem(f"suite {suite.name} proposition", first.proposition, allowed, mend))
        askable += own
    if problems:
        raise InputError(limited(problems, f"suite {suite.name}"))
    return tuple(askable)


def _propositions(suite: Suite) -> Mapping[tuple[str, str], Item]:
    """The first item of every proposition; items without a proposition_id of their own may share a text."""
    firsts: dict[tuple[str, str], Item] = {}
    for item in suite.items:
        firsts.setdefault((item.topic, item.proposition), item)
    return firsts


def _from_templates(item: Item) -> list[Item]:
    return [
        Item(
            f"{item.proposition_id}_{phrasing}_{number:02d}",
            item.topic,
            item.proposition_id,
            item.proposition,
            phrasing,
            template.format(proposition=item.proposition),
            _POLARITY[phrasing],
        )
        for phrasing, templates in TEMPLATES.items()
        for number, template in enumerate(templates, start=1)
    ]


def embedded_proposition(item: Item) -> Proposition | None:
    """The proposition of the embedded world that an item is about, None for any other."""
    known = _embedded().get(item.proposition_id)
    return known if known is not None and known.text == item.proposition else None


@cache
def _embedded() -> dict[str, Proposition]:
    return {proposition.proposition_id: proposition for proposition in propositions()}
