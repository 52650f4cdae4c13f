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
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.thoughts import spoken
from valuedrift_mlflow.models.encoder import MINILM, Encoder, check_embedder
from valuedrift_mlflow.suite import Item, Suite, names, tables
from valuedrift_mlflow.suite.prism_topics import subject_words
from valuedrift_mlflow.value_gap.views import asks_for_view, is_practical

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Chosen on generated pairs and on HH-RLHF together: lower ones find hardly more of the first and much of the second.
SIMILARITY = 0.25
QUESTION_SIMILARITY = 0.1
WORDING = 0.5  # share of a wording's weight
WORDS = 3
STATEMENT = 0.6  # share of a statement's weight that a question must have where it has fewer words
# Of MiniLM. On everyday questions to develop with it finds 25 of 30 propositions and none of 80 questions that only
# share a word; 0.55 finds 28 and one of these, 0.5 29 and three.
MINILM_SIMILARITY = 0.6
KEY_WORD = 1 / 6  # share of a topic's wordings that have it
KEY_WORD_OWN = 0.8  # share of the wordings with it that are the topic's
LEXICAL = "tf-idf over stems"
_QUESTION, _ANSWER = 600, 300  # characters read
_FOLLOW_UP = 20  # words; who says more than that has a subject
_SIDES = ("completion", "chosen", "rejected")
_POINTS_BACK = re.compile(
    r"\b(?:it|its|it's|that|this|these|those|they|them|their|one|so)\b|^\W*(?:and|but|what about)\b", re.I
)
_CONFUSED = 0.95  # share of the suite's wordings that must stay below an encoder's threshold
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
        """Match against the propositions of ``suite`` by words, and with the encoder of that name where there is one.

        Raises:
            InputError: the encoder's configuration cannot be read.
        """
        if embedder:
            check_embedder(embedder)
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
        answers = [openings(row) for row in rows]
        found = self._found(asked, asked, answers)
        open_ended = {at: _completed(said[at]) for at in np.flatnonzero(found.proposition < 0).tolist()}
        subjects = {at: subject for at, subject in open_ended.items() if subject}
        if subjects:
            own = [asked[at] for at in subjects]
            together = self._found(own, list(subjects.values()), [answers[at] for at in subjects])
            self._complete(found, together, list(subjects), own)
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

    def _found(self, asked: Sequence[str], subjects: Sequence[str], answers: Sequence[Sequence[str]]) -> Matches:
        """What rows touch, by their questions, what these are about, and the beginnings of the answers."""
        texts = [" ".join([own, *said]) for own, said in zip(subjects, answers, strict=True)]
        similarity, topic = self._lexical.passing(asked, subjects, texts)
        topic[np.isin(topic, self._topics_named)] = -1  # these have names, which know more than their key words
        best = similarity.argmax(axis=1)
        nearest = similarity[np.arange(len(asked)), best]
        proposition = np.where(nearest > 0, best, -1)
        # Before the practical ones are taken out: a name found in one of them still tells its topic.
        self._find_names(asked, subjects, proposition, topic, nearest)
        for row in np.flatnonzero(proposition >= 0).tolist():
            if is_practical(asked[row]):
                proposition[row] = -1
        return Matches(proposition, np.where(proposition >= 0, self._topic_of[proposition], topic), nearest)

    def _find_names(
        self, asked: Sequence[str], subjects: Sequence[str], proposition: Integers, topic: Integers, near: Floats
    ) -> None:
        """Fill in, in place, what rows touch by an everyday name and by no wording."""
        # Only the built-in suite has everyday names; any other is matched by its wordings alone.
        for row in range(len(asked)) if self._named else ():
            named = self._names.find(subjects[row])
            known = [key for key in named.propositions if key in self._named]
            if proposition[row] < 0 and known and asks_for_view(asked[row]):
                # The rule that has most words says most; of equal ones the proposition nearer by its words.
                similar = self._lexical.similarity(subjects[row])
                best = max(known, key=lambda key: (named.propositions[key], similar[self._named[key]]))
                proposition[row], near[row] = self._named[best], similar[self._named[best]]
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
        built_in = {item.proposition_id: item.proposition for item in tables.built_in().items}
        known = enumerate(self.propositions)
        return {own.proposition_id: at for at, own in known if built_in.get(own.proposition_id) == own.text}

    @cached_property
    def _topics_named(self) -> list[int]:
        """The topics of these, in order."""
        return sorted({self._topic_of[place].item() for place in self._named.values()})

    @cached_property
    def _lexical(self) -> _Lexical:
        return _Lexical(self.propositions, self.topics, list(self._named.values()))

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


def _completed(said: Sequence[str]) -> str:
    """The last user turn after the one before; empty where it is long, or does not point back and asks for a view."""
    if len(said) < 2:
        return ""
    asked = _last(said)
    short = len(asked.split()) <= _FOLLOW_UP
    goes_on = short and _POINTS_BACK.search(asked) and asks_for_view(asked, plainly=True)
    return f"{said[-2][-_QUESTION:]} {asked}" if goes_on else ""


def response(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of one side of a row: what is answered after its last user turn, without what was thought before it.

    Empty where a thought has no end.
    """
    after = max((place + 1 for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    said = [spoken(message["content"]) for message in messages[after:] if message["role"] == "assistant"]
    return "\n\n".join(part.answer for part in said if part.finished)


def openings(row: Row) -> list[str]:
    """The first 300 characters of each answer of a row."""
    return [response(row[side])[:_ANSWER] for side in _SIDES if side in row]


@lru_cache(maxsize=20_000)
def _words(text: str) -> frozenset[str]:
    """The words of a text without those that only ask."""
    return frozenset(re.findall(r"[^\W_]+", text.casefold())) - _ASKING


def _stem(word: str) -> str:
    cut = _SUFFIX.sub("", word)
    return (cut if len(cut) >= 3 else word)[:_STEM]


def subject_stems(text: str) -> list[str]:
    """The stems of the words that tell what a text is about, in order."""
    return [_stem(word) for word in subject_words(text) if word not in _COMMON]


class _Stems(dict[str, str]):
    """Words to stems, empty for those that say nothing of a subject; remembers what it was asked."""

    def __missing__(self, word: str) -> str:
        if len(self) > _KNOWN_WORDS:
            self.clear()
        self[word] = _stem(word) if word not in _COMMON and subject_words(word) else ""
        return self[word]


class _Lexical:
    """TF-IDF similarity of rows to P propositions over V stems, with W wordings, and key words of T topics."""

    def __init__(self, known: Sequence[Proposition], topics: Sequence[str], named: Sequence[int]) -> None:
        """Of these propositions and topics; ``named`` are the numbers of the propositions that have everyday names."""
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
        self._statements = self._weights[:, self._first]  # (V, P)
        # Two subject words of the statement, or the only one.
        self._fewest = np.minimum(2, np.maximum(1, (self._statements > 0).sum(axis=0)))
        self._fewest[named] = WORDS  # everyday names know more of these than two words of the statement

        wording_topics = np.array([topics.index(own.topic) for own in known for _ in own.wordings])
        self._key_words = self._distinctive(present.toarray(), wording_topics, len(topics))
        self._names = (self._vectorizer.transform(names) > 0).astype(np.float64).toarray().T  # (V, T)
        self._name_stems = [self._analyse(name) for name in names]

    def _distinctive(self, present: Floats, topic_of: Integers, topics: int) -> Floats:
        """The key words of T topics from (W, V) words of wordings, of the topics (W,): shape (V, T), 0 or 1."""
        own = np.stack([present[topic_of == topic].sum(axis=0) for topic in range(topics)], axis=1)
        wordings = np.bincount(topic_of, minlength=topics)
        # Two wordings at least: a word of a single one tells that
        # one. And with one topic there is nothing to be told from.
        distinct = own >= KEY_WORD_OWN * np.maximum(present.sum(axis=0), 1)[:, None]
        return np.where(distinct & (own >= np.maximum(KEY_WORD * wordings, 2)) & (topics > 1), 1.0, 0.0)

    def _vocabulary(self, profiles: Sequence[str]) -> dict[str, int]:
        stems = sorted({stem for text in profiles for stem in self._analyse(text)})
        return {stem: index for index, stem in enumerate(stems or ["-"])}

    def _analyse(self, text: str) -> list[str]:
        stems = self._stems
        return [stem for word in _WORD.findall(text.casefold()) if (stem := stems[word])]

    def similarity(self, text: str) -> Floats:
        """That of one text to each proposition, shape (P,)."""
        own: Floats = (self._vectorizer.transform([text]) @ self._profiles)[0]
        return own

    def passing(self, asked: Sequence[str], subjects: Sequence[str], texts: Sequence[str]) -> tuple[Floats, Integers]:
        """The similarity of N rows to each proposition, 0 where it fails the test, and their topic by key words.

        Shapes (N, P) and (N,), -1 where there is no topic. ``asked`` are the questions, ``subjects`` the same or with
        what completes them, ``texts`` these with the answers.
        """
        vectors, about = self._vectorizer.transform(texts), self._vectorizer.transform(subjects)
        similarity: Floats = vectors @ self._profiles
        wide = similarity >= SIMILARITY
        said = (about > 0).astype(np.float64)
        # Of the question alone: an answer may say all the words of a statement that nobody asked about.
        few = said @ self._statements >= STATEMENT
        passed = np.zeros(similarity.shape, dtype=bool)
        near = np.flatnonzero((wide | few).any(axis=1))
        if near.size:  # few rows get here, and the rest of the work is for them alone
            present = (vectors[near] > 0).astype(np.float64)
            # The best wording of each proposition: its wordings stand together, from `_first` on.
            shares = np.maximum.reduceat(present @ self._weights, self._first, axis=1)
            enough = (shares >= WORDING) & (present @ self._words >= self._enough)
            asking = np.array([asks_for_view(asked[row]) for row in near.tolist()])[:, None]
            few_enough = (said[near] @ (self._statements > 0).astype(np.float64) >= self._fewest) & asking
            close = about[near] @ self._profiles >= QUESTION_SIMILARITY
            passed[near] = ((wide[near] & enough) | (few[near] & few_enough)) & close
        # What has passed stays above 0, which is what the others have.
        return np.where(passed, np.maximum(similarity, 1e-9), 0.0), self._topics_by_words(said, asked, subjects)

    def _topics_by_words(self, said: Floats, asked: Sequence[str], subjects: Sequence[str]) -> Integers:
        """The topic of N questions by its name or its key words: shape (N,), -1 where there is none."""
        keys = said @ self._key_words  # (N, T)
        whole = (said @ self._names >= self._names.sum(axis=0)) & (self._names.sum(axis=0) > 0)
        topic = np.full(len(asked), -1)
        for row in np.flatnonzero((keys > 0).any(axis=1) | whole.any(axis=1)).tolist():
            stems = self._analyse(subjects[row])
            named = [at for at in np.flatnonzero(whole[row]).tolist() if self._says(stems, self._name_stems[at])]
            sure = [at for at in named if len(self._name_stems[at]) > 1] or np.flatnonzero(keys[row] > 1).tolist()
            if sure:
                topic[row] = max(sure, key=lambda at: keys[row, at])
            elif asks_for_view(asked[row], plainly=True):
                topic[row] = named[0] if named else keys[row].argmax()
        return topic

    @staticmethod
    def _says(stems: Sequence[str], name: Sequence[str]) -> bool:
        """Whether the stems of a name stand in a text one after the other."""
        return any(list(stems[at : at + len(name)]) == list(name) for at in range(len(stems) - len(name) + 1))

    def goes_on(self, asked: str, about: Sequence[int]) -> bool:
        """Whether most subject words of a question, or all of none, are words of some of these propositions."""
        stems = set(self._analyse(asked))
        known = {stem for stem in stems if stem in self._vectorizer.vocabulary_}
        own = sum(bool(self._words[self._vectorizer.vocabulary_[stem], about].any()) for stem in known)
        return not stems or own > len(stems) / 2


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
        # As in `_Lexical.passing`: the nearest wording of each proposition.
        similarity = np.maximum.reduceat(self._unit(asked) @ self._wordings, self._first, axis=1)
        best, near = similarity.argmax(axis=1), similarity.max(axis=1)
        return np.where(near >= max(self.threshold, 1e-9), best, -1), near
