"""Prompts to topics: near-duplicates, embedding, clusters and their names."""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.models.encoder import Encoder
from valuedrift_mlflow.suite.prism_propositions import MARKERS

Floats = NDArray[np.float64]
LEXICAL = "tf-idf and truncated SVD"
NEAR_DUPLICATE = 0.95  # cosine
_MOST_CLUSTERS = 3  # times as many as topics are wanted
_ASKING = frozenset(
    ("think", "believe", "feel", "agree", "disagree", "opinion", "opinions", "view", "views", "thought", "thoughts")
) | {"support", "oppose", "favour", "favor", "against", "people"}


@dataclass(frozen=True)
class Clustering:
    """Topics as lists of text indices, nearest to the centroid first, and how many clusters KMeans made for them.

    ``smallest`` is the size of the smallest topic; where no clustering had topics as large as was asked, ``topics`` is
    empty and ``smallest`` is the most that any had.
    """

    topics: list[list[int]]
    made: int
    smallest: int


@cache
def stop_words() -> frozenset[str]:
    """scikit-learn's English stop words."""
    # From their own file where there is one: all of it takes 1.5 seconds to import, in every process that reads rows.
    package = find_spec("sklearn")
    listed = Path(package.origin if package and package.origin else "").parent / "feature_extraction" / "_stop_words.py"
    if listed.is_file():
        return frozenset(runpy.run_path(str(listed))["ENGLISH_STOP_WORDS"])
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def subject_words(text: str) -> list[str]:
    """The words that tell what a text is about: no stop words, no words of duty or worth."""
    return [
        word
        for word in re.findall(r"[^\W\d_]{3,}", text.casefold())
        if word not in stop_words() and word not in MARKERS and word not in _ASKING
    ]


def stems(text: str) -> set[str]:
    """The first five letters of each subject word."""
    return {word[:5] for word in subject_words(text)}


def distinct(texts: Sequence[str]) -> list[int]:
    """Indices of the texts without those that an earlier one says in nearly the same words.

    That is: without those whose TF-IDF vectors of character n-grams have a cosine above 0.95 with an earlier one's.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    if not texts:
        return []
    words = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(words)
    # Neighbours within a radius, not all distances: a large file has too many of these.
    near = NearestNeighbors(radius=1 - NEAR_DUPLICATE, metric="cosine").fit(vectors)
    kept: set[int] = set()
    for index, neighbours in enumerate(near.radius_neighbors(vectors, return_distance=False)):
        if kept.isdisjoint(neighbours.tolist()):
            kept.add(index)
    return sorted(kept)


def cluster(vectors: Floats, topics: int, size: int, seed: int) -> Clustering:
    """``topics`` clusters of at least ``size`` vectors, shape (N, D), each.

    KMeans makes as many clusters as topics are wanted; where some of them are too small it makes more, up to three
    times as many, until the largest ones suffice. The rest is left out.
    """
    from sklearn.cluster import KMeans

    most = 0
    for number in range(topics, min(_MOST_CLUSTERS * topics, len(vectors)) + 1):
        # Ten starts, of which the best counts; by itself scikit-learn makes one.
        kmeans = KMeans(number, n_init=10, random_state=seed).fit(vectors)
        sizes = np.bincount(kmeans.labels_, minlength=number)
        # Stable: among equals the order of the texts decides, so that a build is the same everywhere.
        largest = np.argsort(-sizes, kind="stable")[:topics]
        smallest = int(sizes[largest[-1]])
        most = max(most, smallest)
        if smallest >= size:
            distances = kmeans.transform(vectors)
            members = [(topic, np.flatnonzero(kmeans.labels_ == topic)) for topic in largest]
            nearest = [own[np.argsort(distances[own, topic], kind="stable")].tolist() for topic, own in members]
            return Clustering(nearest, number, smallest)
    return Clustering([], 0, most)


def embed(texts: Sequence[str], embedder: str, topics: int, seed: int) -> Floats:
    """Vectors of length 1, one per text: shape (N, D). By the encoder named ``embedder``, else from the words alone.

    Raises:
        InputError: the encoder cannot be loaded.
    """
    from sklearn.preprocessing import normalize

    vectors = Encoder(embedder).vectors(texts) if embedder else _lexical(texts, topics, seed)
    unit: Floats = normalize(vectors)
    return unit


def _lexical(texts: Sequence[str], topics: int, seed: int) -> Floats:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    subjects = [" ".join(subject_words(text)) or text for text in texts]
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5), sublinear_tf=True).fit_transform(subjects)
    # About 1.5 dimensions a topic found the 11 topics of the built-in suite best, of 1 to 9 dimensions a topic.
    dimensions = min(max(round(1.5 * topics), 2), *(size - 1 for size in counts.shape))
    if dimensions < 1:
        return np.ones((len(texts), 1))
    vectors: Floats = TruncatedSVD(dimensions, random_state=seed).fit_transform(counts)
    return vectors


def topic_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """A slug for every group of texts: its two top terms by mean TF-IDF, more where another group has the same."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def analyse(text: str) -> list[str]:
        return [word for word in subject_words(text) if re.fullmatch("[a-z]+", word)] or ["topic"]

    vectorizer = TfidfVectorizer(analyzer=analyse, sublinear_tf=True)
    vectors = vectorizer.fit_transform([text for group in groups for text in group])
    terms = vectorizer.get_feature_names_out()
    names: list[str] = []
    start = 0
    for group in groups:
        weights = np.asarray(vectors[start : start + len(group)].mean(axis=0)).ravel()
        start += len(group)
        ranked = _other_stems([str(terms[i]) for i in np.argsort(-weights, kind="stable") if weights[i] > 0])
        options = ["_".join(ranked[:length]) for length in range(min(2, len(ranked)), len(ranked) + 1)]
        options += [f"{options[0]}_{number}" for number in range(2, len(groups) + 2)]
        names.append(next(option for option in options if option not in names))
    return names


def _other_stems(words: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(word[:5], word)
    return list(first.values())
