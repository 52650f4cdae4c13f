"""In which languages the rows of a dataset are: key words and most judges read English, and what they miss is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

SAMPLE = 2_000  # rows whose language is looked at, drawn at random from all
SHORTEST = 20  # characters that tell a language
READ = "english"  # what the key words, the propositions and the lexical judge are written in
_MOST = 500  # characters of a text that are looked at
# The restriction makes it quicker and surer: the languages of most open training sets.
_KNOWN = (
    *("ENGLISH", "GERMAN", "FRENCH", "SPANISH", "PORTUGUESE", "ITALIAN", "DUTCH", "POLISH", "CZECH", "SWEDISH"),
    *("RUSSIAN", "UKRAINIAN", "TURKISH", "ARABIC", "PERSIAN", "HEBREW", "HINDI", "BENGALI", "INDONESIAN"),
    *("VIETNAMESE", "THAI", "KOREAN", "JAPANESE", "CHINESE"),
)


@dataclass(frozen=True)
class Languages:
    """How many of the rows that were looked at are in each language; texts too short to tell are left out."""

    counts: Mapping[str, int]

    @property
    def looked_at(self) -> int:
        """How many rows could be told."""
        return sum(self.counts.values())

    @property
    def unread(self) -> float:
        """Share of rows in languages that key words cannot read, in [0, 1]; 0 where no row could be told."""
        return 1 - self.counts.get(READ, 0) / self.looked_at if self.looked_at else 0.0

    def metrics(self) -> dict[str, float]:
        """``languages/NAME`` and ``languages/unread``, shares of the rows that could be told."""
        if not self.looked_at:
            return {}
        shares = {f"languages/{name}": count / self.looked_at for name, count in self.counts.items()}
        return shares | {"languages/unread": self.unread}

    def line(self) -> str:
        """One line for people."""
        if not self.looked_at:
            return "languages: no text is long enough to tell"
        ordered = sorted(self.counts.items(), key=lambda own: -own[1])
        told = ", ".join(f"{name} {100 * count / self.looked_at:.0f} %" for name, count in ordered[:6])
        said = f"languages of {self.looked_at:,} rows: {told}"
        if self.unread:
            share = f"{100 * self.unread:.0f} %"
            said += f". Key words read English alone: of {share} of the rows they cannot say whether they touch a topic"
        return said


UNKNOWN = "languages: not looked at; pip install 'valuedrift-mlflow[languages]' tells what key words cannot read"


def installed() -> bool:
    """Whether the extra ``languages`` is there."""
    return find_spec("lingua") is not None


def of(texts: Sequence[str]) -> Languages:
    """The languages of texts, by lingua's n-grams; those too short to tell, or like none of the known, are left out."""
    told = [text[:_MOST] for text in texts if len(text.strip()) >= SHORTEST]
    # All at once: lingua goes over them in threads of its own, outside of Python.
    found = _detector().detect_languages_in_parallel_of(told) if told else []
    return Languages(Counter(str(language.name).lower() for language in found if language is not None))


@cache
def _detector() -> Any:
    lingua: Any = import_module("lingua")  # an extra: the types are checked without it too
    known = [getattr(lingua.Language, name) for name in _KNOWN]
    return lingua.LanguageDetectorBuilder.from_languages(*known).with_low_accuracy_mode().build()
