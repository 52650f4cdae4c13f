"""Contested questions that a dataset holds beyond a suite's propositions, as a suite of their own.

The steps are those of ``prism:`` suites (`suite.prism`), on the questions of a dataset's rows:

1. Questions are kept that touch no proposition of the suite, ask for a view in a word of duty, worth, law or opinion,
   and stand alone (no "I", "you", "this").
2. The proposition of each is read off it by rules. With a model, that one makes yes-no questions of statements and open
   questions, and writes the propositions that the rules cannot find.
3. Questions that say nearly the same are one. The others are put together by subject: average linkage on the cosine of
   the stems of their subject words (words of the law left out, which any topic has), or of an encoder's vectors.
4. A group of at least ``SMALLEST`` questions, of which a third have a proposition, is a topic, named after its two top
   terms. Its propositions are those of its questions, the ``PER_TOPIC`` nearest to the middle; those questions are the
   prompts.

A topic's propositions may point against each other ("should be banned", "do more good than harm"), as in ``prism:``
suites: read its stances proposition by proposition. The rules are about English. How many questions make a topic is a
choice: with fewer, what one person asks would be one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.models.encoder import Encoder
from valuedrift_mlflow.suite import Item, Suite, tables
from valuedrift_mlflow.suite.prism import Opening, Usable, rewritten
from valuedrift_mlflow.suite.prism_propositions import read
from valuedrift_mlflow.suite.prism_topics import distinct, topic_names
from valuedrift_mlflow.value_gap.matching import Matcher, question
from valuedrift_mlflow.value_gap.views import asks_for_view
from valuedrift_mlflow.value_gap.wordings import subject_stems

Floats = NDArray[np.float64]
SMALLEST = 5  # questions of a topic
CLAIMED = 1 / 3  # share of them whose proposition is known: a group with fewer is talk, not a topic
PER_TOPIC = 30  # prompts of a topic
MOST_TOPICS = 30
QUESTIONS = 10_000  # that are kept, the first; grouping compares each with each
# Cosine distances up to which groups are joined, on average over their members.
_NEAR, _NEAR_ENCODED = 0.75, 0.6
_LONGEST = 40  # words of a question
# Stems of words of the law, which any topic has.
_OF_LAW = re.compile(
    r"(?:allow|permi|ban|legal|illega|law|abolis|forbid|prohib|outlaw|compul|mandat|requir|crime|crimin|clos|restri|regul|"
    r"govern|public|state|countr|societ)\w{0,3}"
)
_POINTING = frozenset(("this", "that", "these", "those", "its", "he", "she", "they", "him", "her", "there", "here"))


@dataclass(frozen=True)
class Found:
    """What a dataset holds beyond a suite.

    Attributes:
        suite: the topics found; None where there is none.
        rows: how many rows ask one of the questions of a topic.
        questions: how many questions ask for a view and touch no proposition of the known suite.
    """

    suite: Suite | None
    rows: dict[str, int]
    questions: int


def check_output(file: Path) -> None:
    """Refuse a file that a suite cannot be written to.

    Raises:
        InputError: no csv file, or in a folder that there is not.
    """
    if file.suffix != ".csv" or not file.parent.is_dir():
        raise InputError(problem("output", str(file), "a file NAME.csv in an existing folder"))


class Questions:
    """Collects the questions of rows, batch by batch."""

    def __init__(self, known: Matcher) -> None:
        """Leave out what touches a proposition of this matcher's suite."""
        self._known = known
        self._asked: Counter[str] = Counter()

    def take(self, batch: Sequence[Row]) -> None:
        """The questions of some rows; how often each is asked is kept."""
        # What touches a proposition is in the audit on the known suite already.
        free = np.flatnonzero(self._known.match(batch).proposition < 0).tolist()
        for asked in (" ".join(question(batch[at]).split()) for at in free):
            # Beyond the limit the known ones are still counted: how often
            # they are asked must not depend on where the limit is.
            known = asked in self._asked
            if known or (len(self._asked) < QUESTIONS and _is_contested(asked)):
                self._asked[asked] += 1

    def found(self, *, embedder: str = "", model: str = "") -> Found:
        """The topics among them.

        Raises:
            InputError: the encoder or the model cannot be loaded.
        """
        openings = []
        for number, asked in enumerate(self._asked):
            reading = read(asked)
            openings.append(Opening(f"{number:05d}", asked, reading.form, reading.claim))
        if model and openings:
            openings = rewritten(openings, model, Counter())
        # Questions without a proposition help to tell that there is a topic; they are no prompts of it.
        kept = [openings[place] for place in distinct([own.prompt for own in openings])]
        by_subject = [[kept[place] for place in group] for group in _groups([own.prompt for own in kept], embedder)]
        # Two at least: stances on a single proposition are no topic's.
        groups = [group for group in by_subject if len(_usable(group)) >= max(2, CLAIMED * len(group))]
        if not groups:
            return Found(None, {}, len(kept))
        names = topic_names([[own.prompt for own in group] for group in groups])
        named = dict(zip(names, groups, strict=True))
        items = [item for name, group in named.items() for item in _items(name, _usable(group))]
        said = list(self._asked.values())  # by number, which is the question's id
        rows = {name: sum(said[int(own.conversation_id)] for own in group) for name, group in named.items()}
        # Through a table, as a file of it will be read: the same checks, the same hash.
        frame = Suite("discovered", "1", tuple(items), "discovered").frame()
        return Found(tables.from_frame(frame, "discovered", "1"), rows, len(kept))


def _usable(group: Sequence[Opening]) -> list[Usable]:
    """The questions of a group whose proposition is known and can be understood alone."""
    return [
        Usable(own.conversation_id, own.prompt, own.claim)
        for own in group
        if own.claim is not None and _stands_alone(own.claim.proposition)
    ]


def _is_contested(asked: str) -> bool:
    return len(asked.split()) <= _LONGEST and asks_for_view(asked, plainly=True) and read(asked).opinion


def _stands_alone(proposition: str) -> bool:
    return proposition.casefold().split()[0].strip(".,") not in _POINTING


def _groups(texts: Sequence[str], embedder: str) -> list[list[int]]:
    """The largest groups of texts on one subject, as places of these, nearest to their middle first."""
    from sklearn.cluster import AgglomerativeClustering

    if len(texts) < SMALLEST:
        return []
    vectors = _vectors(texts, embedder)
    # By a distance, not a number: how many topics there are is what is asked.
    linked = AgglomerativeClustering(
        n_clusters=None,
        metric="cosine",
        linkage="average",
        distance_threshold=_NEAR_ENCODED if embedder else _NEAR,
    ).fit(vectors)
    sizes = np.bincount(linked.labels_)
    # Stable: of equal groups the one that begins first comes first.
    largest = [group for group in np.argsort(-sizes, kind="stable")[:MOST_TOPICS] if sizes[group] >= SMALLEST]
    groups = []
    for group in largest:
        own = np.flatnonzero(linked.labels_ == group)
        near = vectors[own] @ vectors[own].mean(axis=0)
        groups.append(own[np.argsort(-near, kind="stable")].tolist())
    return groups


def _vectors(texts: Sequence[str], embedder: str) -> Floats:
    """Vectors of length 1, shape (N, D)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    if embedder:
        encoded: Floats = normalize(Encoder(embedder).vectors(texts))
        return encoded
    # A text without a subject word has a vector of its own: it is near no other.
    stems = [_subjects(text) or [f"\x00{place}"] for place, text in enumerate(texts)]
    # Not by rarity: what many questions have in common is what makes them one topic.
    counting = TfidfVectorizer(analyzer=lambda own: own, use_idf=False, binary=True)
    counted: Floats = counting.fit_transform(stems).toarray()
    return counted


def _subjects(text: str) -> list[str]:
    return [stem for stem in subject_stems(text) if not _OF_LAW.fullmatch(stem)]


def _items(topic: str, members: Sequence[Usable]) -> Iterable[Item]:
    """A topic's prompts, those nearest to its middle; the same claim is the same proposition."""
    ids: dict[str, str] = {}
    for number, own in enumerate(members[:PER_TOPIC], start=1):
        claim = own.claim
        key = ids.setdefault(claim.proposition.casefold(), f"{topic}_{len(ids) + 1:02d}")
        item_id = f"{topic}_{number:02d}_{claim.phrasing}"
        yield Item(item_id, topic, key, claim.proposition, claim.phrasing, own.prompt, claim.polarity)
