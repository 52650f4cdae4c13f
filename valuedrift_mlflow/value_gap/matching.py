"""Which rows of a dataset touch which proposition of a suite, and with it which topic.

**What is read.** The answered turn decides: the last user turn before the last answer is the row's question (its last
600 characters). The user turn before it is context: it completes a question that points back ("And should that be
legal?") or that has part of the subject, and never decides alone. Of each answer the first 300 characters are read.

**Which proposition.** A row touches at most one, and none where its question asks for a fact, a way to do a thing or a
piece of work (`views`). Three tests find one; what each finds counts:

- Wordings: the TF-IDF similarity of the row and the proposition (statement and prompts together) is at least
  ``SIMILARITY``, that of the question alone at least ``QUESTION_SIMILARITY``; the row has at least half the weight
  (inverse document frequency over the suite) of the subject words of one wording, and three words of the proposition's.
  With fewer than three the question itself must have most of the *statement's* subject words (``STATEMENT`` of their
  weight, two words at least, or the only one; three of a proposition with everyday names), and must ask for a view:
  "Should we tax sugar?".
- Names: the question asks for a view and names the proposition as people do in everyday speech
  (`suite.names`; of the built-in suite alone).
- With ``embedder``: the cosine of the question alone and the nearest wording under a transformers encoder is at least a
  threshold: ``MINILM_SIMILARITY`` for MiniLM; for another encoder the similarity to wordings of *other* topics that
  95 % of the suite's wordings stay below. This also reads other languages, where the encoder does.

Where several find one, wordings come first (they know most of the proposition's words), then names (written by hand,
and exact), then the encoder, where nothing says another topic: it is for what has no word in common.

**Which topic.** That of the proposition. A row without one touches a topic where its question says the topic's name (of
two words or more) or has an everyday name that means nothing else; words that also mean something else ("gun",
"church") count only where the question asks for a view. In a suite of one's own these are the key words, those in a
sixth of the topic's wordings that hardly another topic has; two different ones do without a view. So neither "What is
the best gun oil?" nor "How do I fake my own death?" touches a topic.

What a row touches does not depend on the other rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.models.encoder import MINILM, Encoder, check_embedder
from valuedrift_mlflow.suite import Suite, names, tables
from valuedrift_mlflow.value_gap.propositions import Proposition, propositions
from valuedrift_mlflow.value_gap.views import asks_for_view, is_practical
from valuedrift_mlflow.value_gap.wordings import (
    KEY_WORD,
    QUESTION_SIMILARITY,
    SIMILARITY,
    WORDING,
    WORDS,
    Wordings,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Of MiniLM. On everyday questions to develop with it finds 25 of 30 propositions and none of 80 questions that only
# share a word; 0.55 finds 28 and one of these, 0.5 29 and three.
MINILM_SIMILARITY = 0.6
LEXICAL = "tf-idf over stems"
_QUESTION, _ANSWER = 600, 300  # characters read
_FOLLOW_UP = 20  # words; who says more than that has a subject
_SIDES = ("completion", "chosen", "rejected")
_POINTS_BACK = re.compile(
    r"\b(?:it|its|it's|that|this|these|those|they|them|their|one|so)\b|^\W*(?:and|but|what about)\b", re.I
)
_CONFUSED = 0.95  # share of the suite's wordings that must stay below an encoder's threshold


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What N rows touch, each of shape (N,): number of the proposition and of the topic (-1: none), similarity."""

    proposition: Integers
    topic: Integers
    similarity: Floats


class Matcher:
    """Finds the proposition that a row touches."""

    def __init__(self, suite: Suite, embedder: str = "") -> None:
        """Match against the propositions of ``suite`` by words, and with the encoder of that name where there is one.

        Raises:
            InputError: the encoder's configuration cannot be read.
        """
        if embedder:
            check_embedder(embedder)
        self.suite = suite
        self.propositions = propositions(suite)
        self.topics = suite.topics
        self._topic_of = np.array([self.topics.index(own.topic) for own in self.propositions], dtype=np.int64)
        self.embedder = embedder

    def describe(self) -> dict[str, str]:
        """What a run records: the embedding and its thresholds."""
        encoded = {}
        if self.embedder:
            threshold = f"{self._encoded.threshold:.4f}"
            encoded = {"matching.embedder": self.embedder, "matching.embedder_similarity": threshold}
        return encoded | {
            "matching.embedding": LEXICAL,
            "matching.similarity": str(SIMILARITY),
            "matching.question_similarity": str(QUESTION_SIMILARITY),
            "matching.wording": str(WORDING),
            "matching.words": str(WORDS),
            "matching.key_word": f"{KEY_WORD:.3f}",
        }

    def match(self, rows: Sequence[Row]) -> Matches:
        """What N normalised rows touch; memory grows with N, so stream large data in batches."""
        if not rows:
            none = np.empty(0, dtype=np.int64)
            return Matches(none, none, np.empty(0))
        said = [user_turns(row) for row in rows]
        asked = [_last(own) for own in said]
        found = self._found(asked, asked, rows)
        # What goes on with no proposition at all goes on with none that the row touches together with its context.
        subjects = [
            at
            for at in np.flatnonzero(found.proposition < 0).tolist()
            if _points_back(said[at]) and self._lexical.goes_on(asked[at]) and asks_for_view(asked[at], plainly=True)
        ]
        if subjects:
            own, whole = [asked[at] for at in subjects], [f"{said[at][-2][-_QUESTION:]} {asked[at]}" for at in subjects]
            self._complete(found, self._found(own, whole, [rows[at] for at in subjects]), subjects, own)
        if self.embedder:
            self._find_encoded(asked, found)
        return found

    def _find_encoded(self, asked: Sequence[str], found: Matches) -> None:
        """Fill in, in place, the propositions that the encoder finds for rows that touch none and no other topic."""
        open_ended = np.flatnonzero(found.proposition < 0).tolist()
        rows = [row for row in open_ended if asked[row].strip() and not is_practical(asked[row])]
        if not rows:
            return
        nearest, near = self._encoded.nearest([asked[row] for row in rows])
        for at, row in enumerate(rows):
            topic = self._topic_of[nearest[at]].item()
            if nearest[at] >= 0 and found.topic[row] in (-1, topic):
                found.proposition[row], found.topic[row], found.similarity[row] = nearest[at], topic, near[at]

    def _found(self, asked: Sequence[str], subjects: Sequence[str], rows: Sequence[Row]) -> Matches:
        """What rows touch, by their questions, what these are about, and the beginnings of the answers."""
        similarity, alone = self._lexical.passing(asked, subjects, lambda at: openings(rows[at]))
        topic = np.full(len(rows), -1)
        if len(self._topics_named) < len(self.topics):  # the others have names, which know more than key words
            topic = self._lexical.topics(asked, subjects)
            topic[np.isin(topic, self._topics_named)] = -1
        best = similarity.argmax(axis=1)
        nearest = similarity[np.arange(len(asked)), best]
        proposition = np.where(nearest > 0, best, -1)
        # Before the practical ones are taken out: a name found in one of them still tells its topic.
        self._find_names(asked, subjects, alone, proposition, topic, nearest)
        for row in np.flatnonzero(proposition >= 0).tolist():
            if is_practical(asked[row]):
                proposition[row] = -1
        return Matches(proposition, np.where(proposition >= 0, self._topic_of[proposition], topic), nearest)

    def _find_names(
        self,
        asked: Sequence[str],
        subjects: Sequence[str],
        alone: Floats,
        proposition: Integers,
        topic: Integers,
        near: Floats,
    ) -> None:
        """Fill in, in place, what rows touch by an everyday name and by no wording.

        ``alone`` is how near their subjects are to each proposition, without the answers.
        """
        # Only the built-in suite has everyday names; any other is matched by its wordings alone.
        for row in range(len(asked)) if self._named else ():
            named = self._names.find(subjects[row])
            if named is names.NOTHING:  # as of most
                continue
            known = [key for key in named.propositions if key in self._named]
            if proposition[row] < 0 and known and asks_for_view(asked[row]):
                # The rule that has most words says most; of equal ones the proposition nearer by its words.
                best = max(known, key=lambda key: (named.propositions[key], alone[row, self._named[key]]))
                proposition[row], near[row] = self._named[best], alone[row, self._named[best]]
            if topic[row] < 0:
                sure = self._first_topic(named.topics)
                hinted = self._first_topic(named.hinted) if sure < 0 else -1
                topic[row] = sure if sure >= 0 or hinted < 0 or not asks_for_view(asked[row], plainly=True) else hinted

    def _first_topic(self, found: frozenset[str]) -> int:
        return next((place for place in self._topics_named if self.topics[place] in found), -1)

    def _complete(self, found: Matches, together: Matches, places: Sequence[int], asked: Sequence[str]) -> None:
        """Take over, in place, what the rows at ``places`` touch ``together`` with their context.

        Only where the question (``asked``) goes on with that.
        """
        for own, at in enumerate(places):
            proposition, topic = together.proposition[own].item(), together.topic[own].item()
            about = [proposition] if proposition >= 0 else np.flatnonzero(self._topic_of == topic).tolist()
            if found.topic[at] in (-1, topic) and about and self._lexical.goes_on(asked[own], about):
                found.proposition[at], found.topic[at] = proposition, topic
                found.similarity[at] = together.similarity[own]

    @cached_property
    def _names(self) -> names.Names:
        return names.built_in()

    @cached_property
    def _named(self) -> dict[str, int]:
        """The propositions of the built-in suite among these, with their numbers: they have everyday names."""
        built_in = tables.built_in_propositions()
        known = enumerate(self.propositions)
        return {own.proposition_id: at for at, own in known if built_in.get(own.proposition_id) == own.text}

    @cached_property
    def _topics_named(self) -> list[int]:
        """The topics of these, in order."""
        return sorted({self._topic_of[place].item() for place in self._named.values()})

    @cached_property
    def _lexical(self) -> Wordings:
        return Wordings(self.propositions, self.topics, list(self._named.values()))

    @cached_property
    def _encoded(self) -> _Encoded:
        return _Encoded(self.propositions, self.embedder)


def user_turns(row: Row) -> list[str]:
    """What users say before the last answer of a row; where sides have several turns, those of the first side."""
    side: Sequence[Mapping[str, str]] = next((row[name] for name in _SIDES if name in row), ())
    return [message["content"] for message in (*row["prompt"], *side) if message["role"] == "user"]


def question(row: Row) -> str:
    """The last user turn before the last answer of a row, its last 600 characters; empty where there is none."""
    return _last(user_turns(row))


def _last(said: Sequence[str]) -> str:
    return said[-1][-_QUESTION:] if said else ""


def _points_back(said: Sequence[str]) -> bool:
    """Whether the last user turn points back to the one before; a long one has a subject of its own."""
    return len(said) > 1 and len(_last(said).split()) <= _FOLLOW_UP and bool(_POINTS_BACK.search(_last(said)))


def response(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of one side of a row: what is answered after its last user turn, without what was thought before it.

    Empty where a thought has no end.
    """
    answering = takewhile(lambda message: message["role"] != "user", reversed(messages))
    said = [spoken(message["content"]) for message in answering if message["role"] == "assistant"]
    return "\n\n".join(part.answer for part in reversed(said) if part.finished)


def openings(row: Row) -> str:
    """The first 300 characters of each answer of a row."""
    return "\n".join(response(row[side])[:_ANSWER] for side in _SIDES if side in row)


class _Encoded:
    """Cosine of questions and the W wordings of P propositions under a transformers encoder."""

    def __init__(self, known: Sequence[Proposition], name: str) -> None:
        """Embed the wordings with the encoder of this name.

        Raises:
            InputError: it cannot be loaded.
        """
        self._encoder = Encoder(name)
        self._first = np.cumsum([0, *(len(own.wordings) for own in known)])[:-1]
        wordings = self._unit([text for own in known for text in own.wordings])
        self._wordings = wordings.T  # (D, W)
        self.threshold = MINILM_SIMILARITY if name == MINILM else self._confused(known, wordings @ self._wordings)

    def _confused(self, known: Sequence[Proposition], similarity: Floats) -> float:
        """The similarity to wordings of other topics that 95 % of the wordings stay below, from (W, W) of them."""
        topics = np.array([own.topic for own in known for _ in own.wordings])
        others = np.where(topics[:, None] == topics, -1.0, similarity).max(axis=1)
        if (others > -1).all():
            return float(np.quantile(others, _CONFUSED))
        # One topic: nothing to be confused with, so nearly all wordings must pass by another of their proposition.
        owner = np.repeat(np.arange(len(known)), [len(own.wordings) for own in known])
        same = (owner[:, None] == owner) & ~np.eye(len(owner), dtype=bool)
        return float(np.quantile(np.where(same, similarity, -1.0).max(axis=1), 1 - _CONFUSED))

    def _unit(self, texts: Sequence[str]) -> Floats:
        vectors = self._encoder.vectors(texts)
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    def nearest(self, asked: Sequence[str]) -> tuple[Integers, Floats]:
        """The proposition with the nearest wording to N questions (-1 below the threshold), and how near: (N,)."""
        # As in `wordings.Wordings.passing`: the nearest wording of each proposition.
        similarity = np.maximum.reduceat(self._unit(asked) @ self._wordings, self._first, axis=1)
        best, near = similarity.argmax(axis=1), similarity.max(axis=1)
        return np.where(near >= max(self.threshold, 1e-9), best, -1), near
