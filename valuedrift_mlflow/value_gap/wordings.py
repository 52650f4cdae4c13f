"""How near rows are to the wordings of propositions, by the words they have in common; see `matching`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.remembered import Remembered
from valuedrift_mlflow.suite.prism_topics import subject_words
from valuedrift_mlflow.value_gap.propositions import Proposition, word_set
from valuedrift_mlflow.value_gap.views import asks_for_view

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Chosen on generated pairs and on HH-RLHF together: lower ones find hardly more of the first and much of the second.
SIMILARITY = 0.25
QUESTION_SIMILARITY = 0.1
WORDING = 0.5  # share of a wording's weight
WORDS = 3
STATEMENT = 0.6  # share of a statement's weight that a question must have where it has fewer words
KEY_WORD = 1 / 6  # share of a topic's wordings that have it
KEY_WORD_OWN = 0.8  # share of the wordings with it that are the topic's
_WORD = re.compile(r"[^\W\d_]{3,}")
_SUFFIX = re.compile(r"(?:ations?|ments?|ings?|ers?|ors?|ions?|ies|ied|ed|es|ly|al|s|e|y)$")
_STEM = 6  # letters
# Words of everyday speech that say nothing of what a text is about; few suites are large enough to tell.
_COMMON = word_set(
    "able actually answer ask asked asking best better big bring call called case change come comes coming day days "
    "different doing done easy end even example fact feel find give given gives giving going gone good got great "
    "happen happens hear help helping helps idea just keep keeps kind know known knows later lead least less let life "
    "like likely likes little live lives living long look looking lot make makes making man matter matters maybe mean "
    "means men money month months need needed needs new number okay old one ones own part people person place places "
    "point problem put question really reason right said say saying says see seen sort start stop sure take taken "
    "takes taking talk talking tell thing things time times today told try trying use used uses using want wanted "
    "wants way ways week weeks work working works world year years yes young"
)


def _stem(word: str) -> str:
    cut = _SUFFIX.sub("", word)
    return (cut if len(cut) >= 3 else word)[:_STEM]


def subject_stems(text: str) -> list[str]:
    """The stems of the words that tell what a text is about, in order."""
    return [_stem(word) for word in subject_words(text) if word not in _COMMON]


def _subject_stem(word: str) -> str:
    """The stem of a word; empty where it says nothing of a subject."""
    return _stem(word) if word not in _COMMON and subject_words(word) else ""


# scikit-learn has both too, and takes 1.5 seconds to import, in every process that reads rows. The tests hold these
# against it.
def inverse_frequencies(counts: csr_matrix) -> Floats:
    """(N, V) counts -> (V,) smooth inverse document frequencies, ``log((1 + N) / (1 + df)) + 1``."""
    texts, stems = counts.shape
    found: Floats = np.log((1 + texts) / (1 + np.bincount(counts.indices, minlength=stems))) + 1
    return found


def tf_idf(counts: csr_matrix, inverse: Floats) -> csr_matrix:
    """(N, V) counts, which it takes over -> (N, V) ``(1 + log count) idf``, each row of length 1 (or 0)."""
    texts = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    counts.data = (1 + np.log(counts.data)) * inverse[counts.indices]
    counts.data /= np.sqrt(np.bincount(texts, counts.data**2))[texts]
    return counts


class Wordings:
    """TF-IDF similarity of rows to P propositions over V stems, with W wordings, and key words of T topics."""

    def __init__(self, known: Sequence[Proposition], topics: Sequence[str], named: Sequence[int]) -> None:
        """Of these propositions and topics; ``named`` are the numbers of the propositions that have everyday names."""
        from scipy import sparse

        self._stems = Remembered(_subject_stem)
        # The statement counts twice: it is what a stance is taken on.
        profiles = [" ".join((own.text, *own.wordings)) for own in known]
        names = [topic.replace("_", " ") for topic in topics]
        # With the topics' names, whose words need not stand in any proposition.
        self._vocabulary = self._numbered([*profiles, *names])
        self._places = Remembered(self._places_in)
        self._idf = inverse_frequencies(self._counts(map(self._read, profiles)))
        self._profiles = self._vectors(map(self._read, profiles)).T.toarray()  # (V, P)
        wordings = self._vectors(self._read(text) for own in known for text in own.wordings)
        present = (wordings > 0).astype(np.float64)
        weights = present @ sparse.diags(self._idf)
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
        self._names = (self._vectors(map(self._read, names)) > 0).astype(np.float64).toarray().T  # (V, T)
        self._name_stems = [self._analyse(name) for name in names]

    def _distinctive(self, present: Floats, topic_of: Integers, topics: int) -> Floats:
        """The key words of T topics from (W, V) words of wordings, of the topics (W,): shape (V, T), 0 or 1."""
        own = np.stack([present[topic_of == topic].sum(axis=0) for topic in range(topics)], axis=1)
        wordings = np.bincount(topic_of, minlength=topics)
        # Two wordings at least: a word of a single one tells that
        # one. And with one topic there is nothing to be told from.
        distinct = own >= KEY_WORD_OWN * np.maximum(present.sum(axis=0), 1)[:, None]
        return np.where(distinct & (own >= np.maximum(KEY_WORD * wordings, 2)) & (topics > 1), 1.0, 0.0)

    def _numbered(self, profiles: Sequence[str]) -> dict[str, int]:
        stems = sorted({stem for text in profiles for stem in self._analyse(text)})
        return {stem: index for index, stem in enumerate(stems or ["-"])}

    def _analyse(self, text: str) -> list[str]:
        stems = self._stems
        return [stem for word in _WORD.findall(text.casefold()) if (stem := stems[word])]

    def _read(self, text: str) -> list[int]:
        """The places of a text's stems in the vocabulary, in order."""
        # What stands between blanks comes again and again, with its marks and capitals; no word goes over a blank.
        return list(chain.from_iterable(map(self._places.__getitem__, text.split())))

    def _places_in(self, text: str) -> tuple[int, ...]:
        return tuple(self._vocabulary[stem] for stem in self._analyse(text) if stem in self._vocabulary)

    def _counts(self, texts: Iterable[Sequence[int]]) -> csr_matrix:
        """How often each stem stands in N texts that have been read: shape (N, V)."""
        from scipy import sparse

        read = list(texts)
        ends = np.cumsum([0, *map(len, read)])
        places = np.fromiter(chain.from_iterable(read), dtype=np.int64, count=ends[-1])
        counts = sparse.csr_matrix((np.ones(len(places)), places, ends), shape=(len(read), len(self._vocabulary)))
        counts.sum_duplicates()
        return counts

    def _vectors(self, texts: Iterable[Sequence[int]]) -> csr_matrix:
        """The TF-IDF of N texts that have been read: shape (N, V)."""
        return tf_idf(self._counts(texts), self._idf)

    def passing(
        self, asked: Sequence[str], subjects: Sequence[str], answers: Callable[[int], str]
    ) -> tuple[Floats, Floats]:
        """The similarity of N rows to each proposition, 0 where it fails the test, and that of their subjects alone.

        Both of shape (N, P). ``asked`` are the questions, ``subjects`` the same or with what completes them;
        ``answers`` gives the beginnings of what is said to one of them, between blanks.
        """
        read = [self._read(subject) for subject in subjects]
        about = self._vectors(read)
        alone: Floats = about @ self._profiles
        passed = np.zeros(alone.shape)
        # Fewer rows at every step, and the answers are read of few: what has failed one part of the test has failed.
        near = np.flatnonzero((alone >= QUESTION_SIMILARITY).any(axis=1))
        if near.size:
            vectors = self._vectors([*read[row], *self._read(answers(row))] for row in near.tolist())
            said = (about[near] > 0).astype(np.float64)
            passed[near] = self._tested(vectors, said, alone[near], [asked[row] for row in near.tolist()])
        return passed, alone

    def _tested(self, vectors: csr_matrix, said: csr_matrix, alone: Floats, asked: Sequence[str]) -> Floats:
        """The similarity of N rows to each proposition, 0 where it fails the test: shape (N, P).

        ``vectors`` are those of the rows with their answers, ``said`` has 1 for each stem of their subjects alone, both
        of shape (N, V).
        """
        similarity: Floats = vectors @ self._profiles
        passed = np.zeros(similarity.shape)
        wide, close = similarity >= SIMILARITY, alone >= QUESTION_SIMILARITY
        # Of the question alone: an answer may say all the words of a statement that nobody asked about.
        few = close & (said @ self._statements >= STATEMENT)
        at = np.flatnonzero(((wide & close) | few).any(axis=1))
        if at.size:
            present = (vectors[at] > 0).astype(np.float64)
            # The best wording of each proposition: its wordings stand together, from `_first` on.
            shares = np.maximum.reduceat(present @ self._weights, self._first, axis=1)
            enough = (shares >= WORDING) & (present @ self._words >= self._enough)
            few_enough = few[at] & (said[at] @ (self._statements > 0).astype(np.float64) >= self._fewest)
            for place in np.flatnonzero(few_enough.any(axis=1)).tolist():
                few_enough[place] &= asks_for_view(asked[at[place]])
            # What has passed stays above 0, which is what the others have.
            found = (wide[at] & close[at] & enough) | few_enough
            passed[at] = np.where(found, np.maximum(similarity[at], 1e-9), 0.0)
        return passed

    def topics(self, asked: Sequence[str], subjects: Sequence[str]) -> Integers:
        """The topic of N questions by its name or its key words: shape (N,), -1 where there is none.

        Arguments are as in ``passing``.
        """
        said = (self._counts(map(self._read, subjects)) > 0).astype(np.float64)
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

    def goes_on(self, asked: str, about: Sequence[int] | slice = slice(None)) -> bool:
        """Whether most subject words of a question, or all of none, are words of some of these propositions."""
        stems = set(self._analyse(asked))
        known = {stem for stem in stems if stem in self._vocabulary}
        own = sum(bool(self._words[self._vocabulary[stem], about].any()) for stem in known)
        return not stems or own > len(stems) / 2
