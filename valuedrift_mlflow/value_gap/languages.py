"""In which languages the rows of a dataset are: key words and most judges read English, and what they miss is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from valuedrift_mlflow.inputs import languages
from valuedrift_mlflow.inputs.languages import READ, installed

__all__ = ["SAMPLE", "UNKNOWN", "Languages", "installed", "of"]
SAMPLE = 2_000  # rows whose language is looked at, drawn at random from all


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


def of(texts: Sequence[str]) -> Languages:
    """The languages of texts; those too short to tell, or like none of the known, are left out."""
    return Languages(Counter(filter(None, languages.told(texts))))
