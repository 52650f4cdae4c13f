"""Which rows of a dataset touch which proposition of a suite, and with it which topic.

A row is read as its question (the last 600 characters of what users say in it) and the first 300 characters of each of
its answers. It touches at most one proposition: of those that pass both tests, the most similar one.

- By text: the row has at least half the weight (inverse document frequency over the suite) of the subject words of one
  wording of the proposition - its statement or one of its prompts - and at least three words of the proposition's.
- By embedding: the cosine of the row and the proposition (statement and prompts together) is at least ``SIMILARITY``,
  and that of the question alone at least ``QUESTION_SIMILARITY``. The embedding is TF-IDF over stems of subject words;
  what a row touches does not depend on the other rows.

It touches the topic of that proposition. A row that touches none touches a topic where its question has all words of
the topic's name, or one of its key words: those in a sixth of the topic's wordings that hardly another topic has. This
is the wider net: who asks where to buy a gun touches gun control, and takes no stance on it.

With ``embedder`` a transformers encoder embeds rows and statements instead, and the cosine to a statement alone
decides, so that paraphrases without a common word are found. Its threshold is read from the suite: the similarity to
propositions of *other* topics that 95 % of the suite's prompts stay below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.models.encoder import Encoder, check_embedder
from valuedrift_mlflow.suite import Item, Suite
from valuedrift_mlflow.suite.prism_topics import subject_words

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Chosen on generated pairs and on HH-RLHF together: lower ones find hardly more of the first and much of the second.
SIMILARITY = 0.25
QUESTION_SIMILARITY = 0.1
WORDING = 0.5  # share of a wording's weight
WORDS = 3
KEY_WORD = 1 / 6  # share of a topic's wordings that have it
KEY_WORD_OWN = 0.8  # share of the wordings with it that are the topic's
LEXICAL = "tf-idf over stems"
_QUESTION, _ANSWER = 600, 300  # characters read
_CONFUSED = 0.95  # share of the suite's prompts that must stay below an encoder's threshold
_WORD = re.compile(r"[^\W\d_]{3,}")
_SUFFIX = re.compile(r"(?:ations?|ments?|ings?|ers?|ors?|ions?|ies|ied|ed|es|ly|al|s|e|y)$")
_STEM = 6  # letters
_KNOWN_WORDS = 200_000  # remembered before they are forgotten


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ASKING = _set("a an believe do does feel in is it opinion please say that the think true would you your")
# Words of everyday speech that say nothing of what a text is about; few suites are large enough to tell.
_COMMON = _set(
    "able actually answer ask asked asking best better big bring call called case change come comes coming day days "
    "different doing done easy end even example fact feel find give given gives giving going gone good got great "
    "happen happens hear help helping helps idea just keep keeps kind know known knows later lead least less let life "
    "like likely likes little live lives living long look looking lot make makes making man matter matters maybe mean "
    "means men money month months need needed needs new number okay old one ones own part people person place places "
    "point problem put question really reason right said say saying says see seen sort start stop sure take taken "
    "takes taking talk talking tell thing things time times today told try trying use used uses using want wanted "
    "wants way ways week weeks work working works world year years yes young"
)


@dataclass(frozen=True, slots=True)
class Proposition:
    """A proposition of a suite with its topic and all its wordings: the statement first, then its prompts.

    ``polarities`` are those of the wordings: +1 where agreeing with one supports the proposition, else -1.
    """

    proposition_id: str
    topic: str
    text: str
    wordings: tuple[str, ...]
    polarities: tuple[int, ...]

    def polarity(self, asked: str) -> int | None:
        """The polarity of a question in the very words of a wording, in any order; None of any other.

        >>> legal = Proposition("doping", "sport", "Doping should be legal.", ("Doping should be legal.",), (1,))
        >>> legal.polarity("Do you think doping should be legal?"), legal.polarity("Should doping be illegal?")
        (1, None)
        """
        words = _words(asked)
        known = {own for wording, own in zip(self.wordings, self.polarities, strict=True) if _words(wording) == words}
        return known.pop() if len(known) == 1 else None


def propositions(suite: Suite) -> tuple[Proposition, ...]:
    """The propositions of a suite in order of first appearance."""
    items: dict[str, list[Item]] = {}
    for item in suite.items:
        items.setdefault(item.proposition_id, []).append(item)
    return tuple(
        Proposition(
            key,
            own[0].topic,
            own[0].proposition,
            (own[0].proposition, *(item.prompt for item in own)),
            (1, *(item.polarity for item in own)),
        )
        for key, own in items.items()
    )


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What N rows touch, each of shape (N,): number of the proposition and of the topic (-1: none), similarity."""

    proposition: Integers
    topic: Integers
    similarity: Floats


class Matcher:
    """Finds the proposition that a row touches."""

    def __init__(self, suite: Suite, embedder: str = "") -> None:
        """Match against the propositions of ``suite``, lexically or with the encoder of that folder or hub id.

        Raises:
            InputError: the encoder's configuration cannot be read.
        """
        if embedder:
            check_embedder(embedder)
        self.propositions = propositions(suite)
        self.topics = suite.topics
        self._topic_of = np.array([self.topics.index(own.topic) for own in self.propositions], dtype=np.int64)
        self._embedder = embedder

    def describe(self) -> dict[str, str]:
        """What a run records: the embedding and its thresholds."""
        if self._embedder:
            return {"matching.embedding": self._embedder, "matching.similarity": f"{self._encoded.threshold:.4f}"}
        return {
            "matching.embedding": LEXICAL,
            "matching.similarity": str(SIMILARITY),
            "matching.question_similarity": str(QUESTION_SIMILARITY),
            "matching.wording": str(WORDING),
            "matching.words": str(WORDS),
            "matching.key_word": f"{KEY_WORD:.3f}",
        }

    def match(self, rows: Sequence[Row]) -> Matches:
        """What N normalised rows touch; memory grows with N, so stream large data in batches."""
        questions = [question(row) for row in rows]
        texts = [" ".join([asked, *openings(row)]) for asked, row in zip(questions, rows, strict=True)]
        if not rows:
            none = np.empty(0, dtype=np.int64)
            return Matches(none, none, np.empty(0))
        if self._embedder:
            similarity, topic = self._encoded.passing(texts), np.full(len(rows), -1)
        else:
            similarity, topic = self._lexical.passing(questions, texts)
        best = similarity.argmax(axis=1)
        nearest = similarity[np.arange(len(rows)), best]
        passed = nearest > 0
        return Matches(np.where(passed, best, -1), np.where(passed, self._topic_of[best], topic), nearest)

    @cached_property
    def _lexical(self) -> _Lexical:
        return _Lexical(self.propositions, self.topics)

    @cached_property
    def _encoded(self) -> _Encoded:
        return _Encoded(self.propositions, Encoder(self._embedder))


def question(row: Row) -> str:
    """What the users of a row's prompt say, its last 600 characters."""
    return " ".join(message["content"] for message in row["prompt"] if message["role"] == "user")[-_QUESTION:]


def response(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of one side of a row."""
    return "\n\n".join(message["content"] for message in messages if message["role"] == "assistant")


def openings(row: Row) -> list[str]:
    """The first 300 characters of each answer of a row."""
    return [response(row[side])[:_ANSWER] for side in ("completion", "chosen", "rejected") if side in row]


@lru_cache(maxsize=20_000)
def _words(text: str) -> frozenset[str]:
    """The words of a text without those that only ask."""
    return frozenset(re.findall(r"[^\W_]+", text.casefold())) - _ASKING


def _stem(word: str) -> str:
    cut = _SUFFIX.sub("", word)
    return (cut if len(cut) >= 3 else word)[:_STEM]


class _Stems(dict[str, str]):
    """Words to stems, empty for those that say nothing of a subject; remembers what it was asked."""

    def __missing__(self, word: str) -> str:
        if len(self) > _KNOWN_WORDS:
            self.clear()
        self[word] = _stem(word) if word not in _COMMON and subject_words(word) else ""
        return self[word]


class _Lexical:
    """TF-IDF similarity of rows to P propositions over V stems, with W wordings, and key words of T topics."""

    def __init__(self, known: Sequence[Proposition], topics: Sequence[str]) -> None:
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._stems = _Stems()
        # The statement counts twice: it is what a stance is taken on.
        profiles = [" ".join((own.text, *own.wordings)) for own in known]
        self._vectorizer = TfidfVectorizer(analyzer=self._analyse, sublinear_tf=True)
        names = [topic.replace("_", " ") for topic in topics]
        # With the topics' names, whose words need not stand in any proposition.
        self._vectorizer.set_params(vocabulary=self._vocabulary([*profiles, *names]))
        self._profiles = self._vectorizer.fit_transform(profiles).T.toarray()  # (V, P)
        wordings = self._vectorizer.transform([text for own in known for text in own.wordings])
        present = (wordings > 0).astype(np.float64)
        weights = present @ sparse.diags(self._vectorizer.idf_)
        mass = np.maximum(np.asarray(weights.sum(axis=1)), 1e-9)
        self._weights = (weights.toarray() / mass).T  # (V, W): shares of each wording's weight
        self._first = np.cumsum([0, *(len(own.wordings) for own in known)])[:-1]
        self._words = (self._profiles > 0).astype(np.float64)  # (V, P)
        self._enough = np.minimum(WORDS, self._words.sum(axis=0))  # a proposition may have one word only

        wording_topics = np.array([topics.index(own.topic) for own in known for _ in own.wordings])
        self._key_words = self._distinctive(present.toarray(), wording_topics, len(topics))
        self._names = (self._vectorizer.transform(names) > 0).astype(np.float64).toarray().T  # (V, T)

    def _distinctive(self, present: Floats, topic_of: Integers, topics: int) -> Floats:
        """The key words of T topics from (W, V) words of wordings, of the topics (W,): shape (V, T), 0 or 1."""
        own = np.stack([present[topic_of == topic].sum(axis=0) for topic in range(topics)], axis=1)
        wordings = np.bincount(topic_of, minlength=topics)
        distinct = own >= KEY_WORD_OWN * np.maximum(present.sum(axis=0), 1)[:, None]
        return np.where(distinct & (own >= np.maximum(KEY_WORD * wordings, 2)) & (topics > 1), 1.0, 0.0)

    def _vocabulary(self, profiles: Sequence[str]) -> dict[str, int]:
        stems = sorted({stem for text in profiles for stem in self._analyse(text)})
        return {stem: index for index, stem in enumerate(stems or ["-"])}

    def _analyse(self, text: str) -> list[str]:
        stems = self._stems
        return [stem for word in _WORD.findall(text.casefold()) if (stem := stems[word])]

    def passing(self, questions: Sequence[str], texts: Sequence[str]) -> tuple[Floats, Integers]:
        """The similarity of N rows to each proposition, 0 where it fails a test, and their topic by key words.

        Shapes (N, P) and (N,), -1 where there is no topic.
        """
        vectors, asked = self._vectorizer.transform(texts), self._vectorizer.transform(questions)
        similarity: Floats = vectors @ self._profiles
        similarity[similarity < SIMILARITY] = 0.0
        near = np.flatnonzero(similarity.any(axis=1))
        if near.size:  # few rows get here, and the rest of the work is for them alone
            present = (vectors[near] > 0).astype(np.float64)
            shares = np.maximum.reduceat(present @ self._weights, self._first, axis=1)
            common = present @ self._words
            question_near = asked[near] @ self._profiles >= QUESTION_SIMILARITY
            similarity[near] *= (shares >= WORDING) & (common >= self._enough) & question_near
        said = (asked > 0).astype(np.float64)
        named = self._names.sum(axis=0)
        keys = said @ self._key_words + ((said @ self._names >= named) & (named > 0))
        return similarity, np.where(keys.any(axis=1), keys.argmax(axis=1), -1)


class _Encoded:
    """Cosine of rows and the statements of P propositions under a transformers encoder."""

    def __init__(self, known: Sequence[Proposition], encoder: Encoder) -> None:
        self._encoder = encoder
        self._statements = self._unit([own.text for own in known]).T  # (D, P)
        topics = np.array([own.topic for own in known])
        owners = np.repeat(np.arange(len(known)), [len(own.wordings) - 1 for own in known])
        prompts = self._unit([text for own in known for text in own.wordings[1:]]) @ self._statements
        others = np.where(topics[owners][:, None] == topics, -1.0, prompts).max(axis=1)
        if (others > -1).all():
            self.threshold = float(np.quantile(others, _CONFUSED))
        else:  # one topic: nothing to be confused with, so nearly all of its own prompts must pass
            self.threshold = float(np.quantile(prompts[np.arange(len(owners)), owners], 1 - _CONFUSED))

    def _unit(self, texts: Sequence[str]) -> Floats:
        vectors = self._encoder.vectors(texts)
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    def passing(self, texts: Sequence[str]) -> Floats:
        """Shape (N, P): the similarity of N rows to each proposition, 0 where it is below the threshold."""
        similarity = self._unit(texts) @ self._statements
        return np.where(similarity >= max(self.threshold, 1e-9), similarity, 0.0)
