"""Fits all that the judge has learnt: linear classifiers, as plain arrays that the readers multiply with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.judges.lexical import polarity, reach
from valuedrift_mlflow.judges.lexical.features import argue, grammar, named, style
from valuedrift_mlflow.judges.lexical.fitting.answers import (
    FORMS_FILE,
    FittingAnswer,
    fitting_answers,
    written_answers,
)
from valuedrift_mlflow.judges.lexical.frame import Reading
from valuedrift_mlflow.judges.lexical.judge import read
from valuedrift_mlflow.judges.lexical.polarity import SHARED, Asked
from valuedrift_mlflow.judges.lexical.reader import CLASSES, Declared, LexicalReader, word_scale
from valuedrift_mlflow.stances import Answer, Label
from valuedrift_mlflow.suite.questions import propositions

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
_FOLDS = 3
_MIRROR = {Label.SUPPORT: Label.OPPOSE, Label.OPPOSE: Label.SUPPORT}
_SWAP = {"+": "-", "-": "+"}
_KINDS = {Label.SUPPORT: 0, Label.OPPOSE: 0, Label.NEUTRAL: 1, Label.REFUSAL: 2, Label.UNSCORED: 3}
# The kind of an answer shows in its words ("depends", "sorry") more than its side does.
_WORDS_OF_KIND = 2.0
# Keeps the scale of a number that hardly varies finite.
_LEAST = 1e-6
# Reversed prompts are the fewer, and to miss one turns an answer round; plain words weigh less than relations.
_REVERSED_WEIGHT, _PLAIN_WORDS = 1.6, 0.25
# How a style may vary, and how alike two styles' numbers are taken to be, at least.
_SPREAD, _RIDGE = 0.003, 0.1
# The share of the fitted answers that is near, for texts in which nobody speaks, and for others.
# Chosen on samples of nine train parts of sets that people labelled, so that less than a tenth of each is weighed that
# is read at chance; the coverage of the check set was looked at beside them.
_NEAR = (0.5, 0.7)


def fit(composed: Iterable[FittingAnswer], written: Iterable[FittingAnswer]) -> LexicalReader:
    """Fit both readers: on answers composed from forms, and on answers written in the style of assistants."""
    return LexicalReader(fit_readers(composed, written))


def fitted() -> Mapping[str, NDArray[Any]]:
    """All that is kept, fitted now; numbers have seven digits: more than any verdict turns on."""
    arrays = (
        fit_readers(fitting_answers(), written_answers())
        | fit_near([row.answer for row in written_answers() if row.label is not Label.UNSCORED])
        | fit_known(suite_questions())
        | fit_related(suite_questions() + other_questions())
    )
    return {name: value.astype(np.float32) if value.dtype == float else value for name, value in arrays.items()}


def fit_readers(composed: Iterable[FittingAnswer], written: Iterable[FittingAnswer]) -> Arrays:
    """Learn from declarations (each with the form it was made from), from argued answers, and from their manners."""
    declared = [(_reading(row), row.label, row.form) for row in composed]
    argued = [_reading(row) for row in written]
    arrays = _fit_declared(declared)
    arrays |= _fit_argued(Declared(arrays), argued, [row.label for row in written])
    sample = [reading for reading, _, _ in declared[::4]]
    manners = style([*sample, *argued])
    spread = manners.std(axis=0) + _LEAST
    found = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
    found.fit((manners - manners.mean(axis=0)) / spread, np.repeat([True, False], [len(sample), len(argued)]))
    weights = found.coef_[0] / spread
    bias = found.intercept_[0] - manners.mean(axis=0) @ weights
    return arrays | {"trust.weights": weights, "trust.bias": np.array(bias)}


def _reading(row: FittingAnswer) -> Reading:
    return read(row.answer, row.answer.polarity or 1)


def mirrored(names: list[str]) -> list[str]:
    """The features of an answer that says the opposite in the same way."""
    return [name[:-1] + _SWAP[name[-1]] if len(name) > 3 and name[-1] in _SWAP else name for name in names]


def _fit_declared(rows: Sequence[tuple[Reading, Label, str]]) -> Arrays:
    """Each answer is learnt from together with its mirror image."""
    forms = {form: number for number, form in enumerate(dict.fromkeys(form for _, _, form in rows))}
    fold = np.array([forms[form] % _FOLDS for _, _, form in rows])
    # Each fold is read with the others' familiar triples: its own would look more familiar than new text ever does.
    by_fold = [_familiar(rows, fold != number) for number in range(_FOLDS)]
    names = [named(reading, by_fold[number]) for (reading, _, _), number in zip(rows, fold, strict=True)]
    names += [mirrored(found) for found in names]
    labels = [label for _, label, _ in rows]
    labels += [_MIRROR.get(label, label) for label in labels]
    vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=6)
    classifier = LogisticRegression(C=0.3, max_iter=200, tol=1e-3)
    classifier.fit(vectorizer.fit_transform(names), [CLASSES.index(label) for label in labels])
    return {
        "declared.names": vectorizer.get_feature_names_out().astype(str),
        "declared.weights": classifier.coef_.T,
        "declared.bias": classifier.intercept_,
        "declared.familiar": np.array(sorted(_familiar(rows, np.ones(len(rows), bool)))),
    }


def _familiar(rows: Sequence[tuple[Reading, Label, str]], kept: NDArray[np.bool_]) -> frozenset[str]:
    coherent = (
        set(grammar("".join(reading.text.classes)))
        for (reading, label, _), keep in zip(rows, kept, strict=True)
        if keep and label is not Label.UNSCORED
    )
    counts = Counter(chain.from_iterable(coherent))
    return frozenset(triple for triple, count in counts.items() if count > 1)


def _fit_argued(declared: Declared, readings: Sequence[Reading], labels: Sequence[Label]) -> Arrays:
    """One classifier for the side, one for the kind."""
    found = argue(declared.log_probabilities, readings)
    vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=3, dtype=np.float64)
    counts = vectorizer.fit_transform(found.words)
    words = sparse.diags(word_scale(np.asarray(counts.sum(axis=1), dtype=np.int64).ravel())) @ counts
    scale, mean, spread = found.sided.std(axis=0) + _LEAST, found.plain.mean(axis=0), found.plain.std(axis=0) + _LEAST
    sided = [sparse.csr_matrix(found.sided / scale), *(sparse.diags(sign) @ words for sign in found.signs.T)]
    sides = sparse.hstack(sided).tocsr()
    kind = np.array([_KINDS[label] for label in labels])
    supports = np.array([label is Label.SUPPORT for label in labels])
    side = _side_classifier().fit(sides[kind == 0], supports[kind == 0])
    lean = np.abs(_unseen_leans(sides, kind, supports))[:, None]
    dense = np.hstack([(found.plain - mean) / spread, lean, np.tanh(lean)])
    kinds = LogisticRegression(C=0.3, max_iter=300, tol=1e-3)
    kinds.fit(sparse.hstack([sparse.csr_matrix(dense), _WORDS_OF_KIND * words]).tocsr(), kind)
    width, numbers = dense.shape[1], found.sided.shape[1]
    weights = kinds.coef_[:, :width].T.copy()
    weights[:-2] /= spread[:, None]
    return {
        "argued.words": vectorizer.get_feature_names_out().astype(str),
        "argued.word_sides": side.coef_[0, numbers:].reshape(3, -1).T,
        "argued.word_kinds": _WORDS_OF_KIND * kinds.coef_[:, width:].T,
        "argued.sides": side.coef_[0, :numbers] / scale,
        "argued.kinds": weights,
        "argued.bias": kinds.intercept_ - mean @ weights[:-2],
    }


def _unseen_leans(sides: sparse.csr_matrix, kind: NDArray[np.int64], supports: NDArray[np.bool_]) -> Floats:
    """How far answers lean, learnt from answers that the side classifier has not seen, shape (n,)."""
    fold = np.random.default_rng(0).integers(0, _FOLDS, len(kind))
    leans = np.zeros(len(kind))
    for number in range(_FOLDS):
        learnt = (kind == 0) & (fold != number)
        classifier = _side_classifier().fit(sides[learnt], supports[learnt])
        leans[fold == number] = classifier.decision_function(sides[fold == number])
    return leans


def _side_classifier() -> LogisticRegression:
    return LogisticRegression(C=0.3, fit_intercept=False, solver="liblinear", tol=1e-3)


def fit_near(answers: Sequence[Answer]) -> Arrays:
    """The mean and spread of the styles of answers, and how far from them texts still are alike."""
    styles = np.array([reach.shape(answer).style for answer in answers])
    mean, spread = styles.mean(axis=0), styles.std(axis=0) + _SPREAD
    scaled = (styles - mean) / spread
    inverse = np.linalg.inv(np.cov(scaled.T) + _RIDGE * np.eye(styles.shape[1]))
    arrays = {"near.mean": mean, "near.spread": spread, "near.inverse": inverse}
    furthest = np.quantile([reach.distance(row, arrays) for row in styles], _NEAR)
    return arrays | {"near.furthest": furthest}


def suite_questions() -> list[Asked]:
    """The questions of the embedded corpora, on the suite's propositions."""
    return [
        Asked(proposition.text, prompt, sign)
        for proposition in propositions()
        for prompts, sign in ((proposition.asked, 1), (proposition.asked_reversed, -1))
        for prompt in prompts
    ]


def other_questions() -> list[Asked]:
    """The prompts of the answers the judge is fitted on, each once."""
    forms: Record = json.loads(FORMS_FILE.read_text(encoding="utf-8"))
    composed = [Asked(row[0], row[place], sign) for row in forms["propositions"] for place, sign in ((8, 1), (9, -1))]
    answers = [row.answer for row in written_answers()]
    written = [Asked(answer.proposition, answer.prompt, answer.polarity or 1) for answer in answers]
    return list(dict.fromkeys(composed + written))


def fit_known(questions: Sequence[Asked]) -> Arrays:
    """For each known proposition, which words and pairs its reversed prompts use; every word is also anybody's."""
    places = {name: place for place, name in enumerate(dict.fromkeys(asked.proposition for asked in questions))}
    vectorizer = CountVectorizer(analyzer=_identity, binary=True, dtype=np.float64)
    counts = vectorizer.fit_transform([polarity.grams(asked.prompt) for asked in questions])
    shared = (sparse.diags(1 / np.sqrt(counts.sum(axis=1).A1)) @ counts).tocoo()
    own_place = np.array([places[asked.proposition] for asked in questions])[shared.row] * shared.shape[1] + shared.col
    shape = (len(questions), len(places) * shared.shape[1])
    own = sparse.csr_matrix((shared.data, (shared.row, own_place)), shape=shape)
    classifier = LogisticRegression(C=30, solver="liblinear", class_weight="balanced")
    classifier.fit(sparse.hstack([own, SHARED * shared]).tocsr(), [asked.polarity for asked in questions])
    return {
        "known.propositions": np.array(list(places)),
        "known.names": vectorizer.get_feature_names_out().astype(str),
        "known.weights": classifier.coef_[0].reshape(len(places) + 1, -1).T,
        "known.bias": classifier.intercept_,
    }


def fit_related(questions: Sequence[Asked]) -> Arrays:
    """Whether a prompt's direction, negations and words agree with the proposition's, whatever the topic."""
    found = [polarity.relation(asked.proposition, asked.prompt) for asked in questions]
    relations = np.array([relation for relation, _ in found])
    scale = relations.std(axis=0)
    scale[scale == 0] = 1
    vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=3, dtype=np.float64)
    counts = _PLAIN_WORDS * vectorizer.fit_transform([words for _, words in found])
    parts = [sparse.csr_matrix(relations / scale), counts, sparse.diags(relations[:, -1]) @ counts]
    classifier = LogisticRegression(
        C=0.3, class_weight={1: 1.0, -1: _REVERSED_WEIGHT}, solver="liblinear", fit_intercept=False
    )
    classifier.fit(sparse.hstack(parts).tocsr(), [asked.polarity for asked in questions])
    width = relations.shape[1]
    return {
        "related.names": vectorizer.get_feature_names_out().astype(str),
        "related.words": _PLAIN_WORDS * classifier.coef_[0, width:].reshape(2, -1).T,
        "related.weights": classifier.coef_[0, :width] / scale,
    }


def _identity(names: list[str]) -> list[str]:
    return names
