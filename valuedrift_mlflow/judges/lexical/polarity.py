"""Finds out whether agreeing with a prompt supports a proposition, where nobody has said so.

For the propositions of the built-in suite it is learnt from the questions of the embedded corpora, which come with
their polarity (none is a prompt of the suite); for any other proposition from how the prompt's words and direction
relate to the proposition's. In doubt agreeing supports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.judges.lexical import answers as lexical_fit
from valuedrift_mlflow.judges.lexical import cues, kept
from valuedrift_mlflow.judges.lexical.frame import Frame
from valuedrift_mlflow.judges.lexical.sections import sections
from valuedrift_mlflow.judges.lexical.tokens import class_of, ends, normalise, stem, tokenise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

QUESTIONS_FILE = Path(str(files("valuedrift_mlflow").joinpath("suite/propositions.jsonl")))
_WORD = re.compile(r"[a-z]+|\?")
# What a proposition's own words weigh against those that turn any proposition round.
_SHARED = 0.5
_PLAIN_WORDS = 0.25
# Reversed prompts are the fewer, and to miss one turns an answer round.
_REVERSED_WEIGHT = 1.6


class Asked(NamedTuple):
    """A prompt on a proposition with its polarity, 1 or -1."""

    proposition: str
    prompt: str
    polarity: int


@lru_cache(maxsize=4_096)
def supports(proposition: str, prompt: str) -> float:
    """Probability that agreeing with the prompt supports the proposition, in [0, 1]; 1 without a prompt."""
    if not prompt.strip():
        return 1.0
    known = _known_questions()
    if proposition in known.places:
        return known.supports([proposition], [prompt])[0]
    return _related().supports(proposition, prompt)


def supports_each(asked: Sequence[tuple[str, str]]) -> list[float]:
    """As ``supports``, of many (proposition, prompt): known propositions in one matrix, which is far faster."""
    known = _known_questions()
    together = [pair for pair in dict.fromkeys(asked) if pair[0] in known.places and pair[1].strip()]
    found: dict[tuple[str, str], float] = {}
    if len(together) > 1:  # one alone may be remembered
        propositions, prompts = zip(*together, strict=True)
        found = dict(zip(together, known.supports(propositions, prompts), strict=True))
    return [found[pair] if pair in found else supports(*pair) for pair in asked]


def suite_questions() -> list[Asked]:
    """The questions of the embedded corpora, on the suite's propositions."""
    from valuedrift_mlflow.suite.questions import propositions

    return [
        Asked(proposition.text, prompt, polarity)
        for proposition in propositions()
        for prompts, polarity in (
            (proposition.asked, 1),
            (proposition.asked_reversed, -1),
        )
        for prompt in prompts
    ]


def other_questions() -> list[Asked]:
    """The prompts of the answers the judge is fitted on, each once."""
    forms: Record = json.loads(lexical_fit.FORMS_FILE.read_text(encoding="utf-8"))
    composed = [Asked(row[0], row[place], sign) for row in forms["propositions"] for place, sign in ((8, 1), (9, -1))]
    answers = [row.answer for row in lexical_fit.written_answers()]
    written = [Asked(answer.proposition, answer.prompt, answer.polarity or 1) for answer in answers]
    return list(dict.fromkeys(composed + written))


@lru_cache(maxsize=1)
def _known_questions() -> KnownQuestions:
    return kept.load(KnownQuestions(), "known")


@lru_cache(maxsize=1)
def _related() -> RelatedQuestions:
    return kept.load(RelatedQuestions(), "related")


def _stemmed(prompt: str) -> str:
    words = _WORD.findall(normalise(ends(prompt)))
    return " ".join(stem(word) if len(word) > 3 else word for word in words)


class KnownQuestions:
    """For each known proposition, which words its reversed prompts use: a linear classifier over words and pairs."""

    def __init__(self) -> None:
        """One that knows nothing yet."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.places: dict[str, int] = {}
        self._vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
        self._classifier = LogisticRegression(C=30, solver="liblinear", class_weight="balanced")

    def fit(self, questions: Sequence[Asked]) -> Self:
        """Learn from questions with their polarity."""
        self.places = {
            name: place for place, name in enumerate(dict.fromkeys(asked.proposition for asked in questions))
        }
        self._vectorizer.fit([_stemmed(asked.prompt) for asked in questions])
        matrix = self._matrix(
            [asked.proposition for asked in questions],
            [asked.prompt for asked in questions],
        )
        self._classifier.fit(matrix, [asked.polarity for asked in questions])
        return self

    def supports(self, propositions: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Probability of each of N prompts, N at least 1, on a known proposition each, that it has polarity 1."""
        of_one: list[float] = self._classifier.predict_proba(self._matrix(propositions, prompts))[:, 1].tolist()
        return of_one

    def _matrix(self, propositions: Sequence[str], prompts: Sequence[str]) -> csr_matrix:
        """Every word twice: as the proposition's own, and as anybody's."""
        from scipy import sparse

        shared = self._vectorizer.transform([_stemmed(prompt) for prompt in prompts]).tocoo()
        width = shared.shape[1]
        place = np.array([self.places[name] for name in propositions])
        own = sparse.csr_matrix(
            (shared.data, (shared.row, place[shared.row] * width + shared.col)),
            shape=(len(prompts), width * len(self.places)),
        )
        return sparse.hstack([own, _SHARED * shared]).tocsr()


class RelatedQuestions:
    """Whether a prompt's direction, negations and words agree with the proposition's, whatever the topic."""

    def __init__(self) -> None:
        """One that knows nothing yet."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        self._vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=3, dtype=np.float64)
        self._scale = np.ones(0)
        self._classifier = LogisticRegression(
            C=0.3, class_weight={1: 1.0, -1: _REVERSED_WEIGHT}, solver="liblinear", fit_intercept=False
        )

    def fit(self, questions: Sequence[Asked]) -> Self:
        """Learn from questions with their polarity."""
        relations, words = zip(
            *[_relation(asked.proposition, asked.prompt) for asked in questions],
            strict=True,
        )
        self._vectorizer.fit(words)
        self._scale = np.array(relations).std(axis=0)
        self._scale[self._scale == 0] = 1
        self._classifier.fit(self._matrix(relations, words), [asked.polarity for asked in questions])
        return self

    def supports(self, proposition: str, prompt: str) -> float:
        """Probability that a prompt on any proposition has polarity 1."""
        relation, words = _relation(proposition, prompt)
        return float(self._classifier.predict_proba(self._matrix([relation], [words]))[0, 1])

    def _matrix(self, relations: Sequence[NDArray[np.float64]], words: Sequence[list[str]]) -> csr_matrix:
        from scipy import sparse

        dense = np.array(relations)
        counts = _PLAIN_WORDS * self._vectorizer.transform(words)
        signed = sparse.diags(dense[:, -1]) @ counts
        return sparse.hstack([sparse.csr_matrix(dense / self._scale), counts, signed]).tocsr()


def _identity(names: list[str]) -> list[str]:
    return names


def _relation(proposition: str, prompt: str) -> tuple[NDArray[np.float64], list[str]]:
    """How a prompt relates to a proposition, the last number being the latter's direction; and the prompt's words."""
    frame = Frame(proposition, "")
    asked = sections(frame.read(prompt.replace("?", "."))).sentences
    whole, last = (
        Frame(prompt, "").direction,
        Frame(prompt.rstrip(" ?!.").split(". ")[-1], "").direction,
    )
    codes = "".join(classes for sentence in asked for classes in sentence.classes)
    claim = "".join(class_of(token) for token in tokenise(normalise(proposition)))
    echoes = [cues.echoes(proposition, sentence)[0] for sentence in asked] or [0]
    levels = (codes.count("^") - codes.count("v")) * ((claim.count("^") > 0) - (claim.count("v") > 0))
    relation = [
        frame.direction * last,
        frame.direction * whole,
        _parity(codes) * _parity(claim),
        _parity(codes),
        echoes[-1],
        sum(echoes),
        _order(
            proposition,
            [stem(token) for sentence in asked for token in sentence.tokens],
        ),
        frame.direction * (codes.count("P") - codes.count("Q")),
        frame.direction * (codes.count("+") - codes.count("-")),
        levels,
        float("#" in codes),
        codes.count("A") - codes.count("a"),
        frame.direction * (codes.count("A") - codes.count("a")),
        1.0,
        frame.direction,
    ]
    return np.array(relation, dtype=np.float64), cues.words(asked)


def _parity(codes: str) -> int:
    return -1 if (codes.count("N") + codes.count("k")) % 2 else 1


def _order(proposition: str, stems: list[str]) -> int:
    """1 where a prompt names the two sides of a comparison in the proposition's order, -1 where the other way round."""
    _, better, worse = cues.predicate(proposition)
    first = next((place for place, found in enumerate(stems) if found in better), None)
    second = next((place for place, found in enumerate(stems) if found in worse), None)
    if first is None or second is None:
        return 0
    return 1 if first < second else -1
