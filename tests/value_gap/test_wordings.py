"""Stop words and the weights of others are those of scikit-learn."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

from valuedrift_mlflow.suite.prism_topics import stop_words
from valuedrift_mlflow.value_gap.wordings import inverse_frequencies, tf_idf


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_weights_are_those_of_scikit_learn(texts: int, words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, new = (csr_matrix(rng.poisson(0.4, (texts, words)).astype(np.float64)) for _ in range(2))
    peer = TfidfTransformer(sublinear_tf=True).fit(known)
    np.testing.assert_array_equal(inverse_frequencies(known), peer.idf_)
    np.testing.assert_array_equal(tf_idf(new.copy(), peer.idf_).toarray(), peer.transform(new).toarray())


def test_stop_words_are_those_of_scikit_learn() -> None:
    assert stop_words() == ENGLISH_STOP_WORDS
