"""What people call the matters of the built-in suite: everyday names of its topics and propositions (`names.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from valuedrift_mlflow.inputs.reading import own_yaml
from valuedrift_mlflow.inputs.remembered import Remembered

_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = re.compile("['’`]")


@dataclass(frozen=True, slots=True)
class Named:
    """The rules that a text meets.

    Attributes:
        topics: topics that it names for certain.
        hinted: topics of which it has an everyday word, which is enough only where it asks for a view.
        propositions: propositions of which it has all of a rule, with the number of words in the longest that it has.
    """

    topics: frozenset[str]
    hinted: frozenset[str]
    propositions: Mapping[str, int]


NOTHING = Named(frozenset(), frozenset(), {})


@dataclass(frozen=True, slots=True)
class _Rule:
    """What has to be in a text (all ``parts`` of it) for a topic or proposition ``subject``."""

    kind: str  # topic, hint, proposition
    subject: str
    parts: int


_Choice = tuple[tuple[str, ...], int, int]  # its other words, the rule, and the part of it that this is


class Names:
    """Rules of ``names.yaml``, looked up word by word, so that a text costs its own length and not theirs."""

    def __init__(self, groups: Mapping[str, str], rules: Iterable[tuple[str, str, str]]) -> None:
        """From groups of choices, and from (kind, subject, rule) with kind topic, hint or proposition.

        Raises:
            KeyError: a rule names a group that there is not.
        """
        self._rules: list[_Rule] = []
        # By first word, or by the beginning of it: the other words, the rule and the part of it that this is.
        self._exact: dict[str, list[_Choice]] = {}
        self._begun: dict[str, list[_Choice]] = {}
        # Texts have most of their words in common, and what these begin.
        self._words = Remembered(plain)
        self._begins = Remembered(self._beginning)
        self._going_on = Remembered(self._begun_by)
        for kind, subject, text in rules:
            parts = text.split(" + ")
            number = len(self._rules)
            self._rules.append(_Rule(kind, subject, len(parts)))
            for place, part in enumerate(parts):
                for choice in _choices(part, groups):
                    first, *rest = choice
                    known = self._begun if first.endswith("*") else self._exact
                    known.setdefault(first.rstrip("*"), []).append((tuple(rest), number, place))

    def find(self, text: str) -> Named:
        """Which rules a text meets."""
        # No word goes over a blank.
        words = list(chain.from_iterable(map(self._words.__getitem__, text.split())))
        met: dict[int, dict[int, int]] = {}
        for at, begins in enumerate(map(self._begins.__getitem__, words)):
            # Most words begin nothing.
            for rest, number, part in self._going_on[" ".join(words[at : at + 2])] if begins else ():
                following = words[at + 1 : at + 1 + len(rest)]
                if len(rest) < 2 or (len(following) == len(rest) and all(map(_is_form, following, rest))):
                    own = met.setdefault(number, {})
                    # The longest way to say a part: it says most.
                    own[part] = max(own.get(part, 0), 1 + len(rest))
        whole = [(self._rules[number], own) for number, own in met.items() if len(own) == self._rules[number].parts]
        if not whole:
            return NOTHING
        propositions: dict[str, int] = {}
        for rule, own in whole:
            if rule.kind == "proposition":
                propositions[rule.subject] = max(propositions.get(rule.subject, 0), sum(own.values()))
        topics = frozenset(rule.subject for rule, _ in whole if rule.kind == "topic")
        return Named(topics, frozenset(rule.subject for rule, _ in whole if rule.kind == "hint"), propositions)

    def _beginning(self, word: str) -> list[_Choice]:
        """The choices that begin with a word; most words begin none."""
        found = [choice for form in _forms(word) for choice in self._exact.get(form, ())]
        for end in range(1, len(word) + 1):
            found += self._begun.get(word[:end], ())
        return found

    def _begun_by(self, words: str) -> list[_Choice]:
        """The choices that one word or two begin: those of the first alone, and those that go on as the second does."""
        word, _, after = words.partition(" ")
        begun = self._begins[word]
        # Those of a word alone come first, those that a star ends last: of equal propositions the first is taken.
        alone = [choice for choice in begun if not choice[0]]
        exact = [choice for form in _forms(after) for choice in begun if choice[0][:1] == (form,)]
        starred = (choice for choice in begun if choice[0] and choice[0][0].endswith("*"))
        return [*alone, *exact, *(choice for choice in starred if _is_form(after, choice[0][0]))]


def plain(text: str) -> list[str]:
    """The words of a text in small letters, without apostrophes; a hyphen parts two.

    >>> plain("Should AR-15s be banned? Don't say.")
    ['should', 'ar', '15s', 'be', 'banned', 'dont', 'say']
    """
    return _WORD.findall(_APOSTROPHES.sub("", text.casefold()))


def _choices(part: str, groups: Mapping[str, str]) -> Iterable[Sequence[str]]:
    for choice in part.split("|"):
        if choice.strip().startswith("$"):
            yield from _choices(groups[choice.strip()[1:]], groups)
        else:
            # The star goes under another name past `plain`, which would take it for a gap between words.
            yield [word.replace("0star", "*") for word in plain(choice.replace("*", "0star"))]


def _forms(word: str) -> tuple[str, ...]:
    """A word, and what it may be the plural of.

    >>> _forms("taxes"), _forms("tax")
    (('taxes', 'taxe', 'tax'), ('tax',))
    """
    return (word, *((word[:-1],) if word.endswith("s") else ()), *((word[:-2],) if word.endswith("es") else ()))


def _is_form(word: str, pattern: str) -> bool:
    """Whether a word is a pattern or its plural, or begins with it where it ends in a star."""
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else pattern in _forms(word)


@cache
def built_in() -> Names:
    """The everyday names of the suite ``vaes``."""
    tree = own_yaml("suite/names.yaml")
    rules = [
        (kind, topic, rule)
        for topic, own in tree["topics"].items()
        for kind, key in (("topic", "names"), ("hint", "words"))
        for rule in own[key]
    ]
    rules += [("proposition", key, rule) for key, own in tree["propositions"].items() for rule in own]
    return Names(tree["groups"], rules)
