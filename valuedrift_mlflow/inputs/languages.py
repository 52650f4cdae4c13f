"""In which languages texts are, by lingua's n-grams (the extra ``languages``).

English is told by its own small words first: that is quicker than the n-grams, and surer on short texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from valuedrift_mlflow.inputs.workers import is_forked

READ = "english"  # what the suite, the key words and the lexical judge are written in
SHORTEST = 20  # characters that tell a language
_MOST = 500  # characters of a text that are looked at
# The restriction makes it quicker and surer: the languages of most open training sets.
_KNOWN = (
    *("ENGLISH", "GERMAN", "FRENCH", "SPANISH", "PORTUGUESE", "ITALIAN", "DUTCH", "POLISH", "CZECH", "SWEDISH"),
    *("RUSSIAN", "UKRAINIAN", "TURKISH", "ARABIC", "PERSIAN", "HEBREW", "HINDI", "BENGALI", "INDONESIAN"),
    *("VIETNAMESE", "THAI", "KOREAN", "JAPANESE", "CHINESE"),
)
# Words that hardly any other of these languages has: few English answers and essays have less than this share.
_SMALL = {
    *("the", "and", "that", "this", "are", "not", "they", "have", "should", "would", "with", "you", "my", "which"),
    *("their", "because", "but", "it", "what", "people", "be", "can", "from", "about", "if", "who", "does", "sorry"),
}
_SHARE = 0.08
# Of the English texts with fewer, lingua is surer than this of another language in broken ones alone.
_SURE = 0.95
_WORD = re.compile(r"[^\W\d_]+")


def installed() -> bool:
    """Whether the extra ``languages`` is there."""
    return find_spec("lingua") is not None


def told(texts: Sequence[str]) -> list[str]:
    """The most likely language of each text, in lower case; empty where it cannot be told.

    Texts of fewer than ``SHORTEST`` characters, and those that are like none of the known languages, cannot be told.
    Without the extra no text can.
    """
    if not installed():
        return [""] * len(texts)
    found = [READ if len(text.strip()) >= SHORTEST and _english(text) else "" for text in texts]
    unsure = [at for at, text in enumerate(texts) if not found[at] and len(text.strip()) >= SHORTEST]
    if unsure:
        cut = [texts[at][:_MOST] for at in unsure]
        # Lingua's threads are not there in a fork, which would wait for them without end.
        one, many = _detector().detect_language_of, _detector().detect_languages_in_parallel_of
        languages = list(map(one, cut)) if is_forked() else many(cut)
        for at, language in zip(unsure, languages, strict=True):
            found[at] = "" if language is None else str(language.name).lower()
    return found


def foreign(texts: Sequence[str]) -> list[str]:
    """The language of each text that is surely in another one than English; empty for all others, as in ``told``."""
    found = [name if name != READ else "" for name in told(texts)]
    return [name if name and _sure(name, text) else "" for name, text in zip(found, texts, strict=True)]


def _english(text: str) -> bool:
    words = _WORD.findall(text[:_MOST].lower())
    return sum(word in _SMALL for word in words) >= _SHARE * max(1, len(words))


def _sure(name: str, text: str) -> bool:
    language = getattr(import_module("lingua").Language, name.upper())
    return float(_detector().compute_language_confidence(text[:_MOST], language)) >= _SURE


@cache
def _detector() -> Any:
    lingua: Any = import_module("lingua")  # an extra: the types are checked without it too
    known = [getattr(lingua.Language, name) for name in _KNOWN]
    return lingua.LanguageDetectorBuilder.from_languages(*known).with_low_accuracy_mode().build()
