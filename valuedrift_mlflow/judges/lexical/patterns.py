"""What the judge reads outright, from ``patterns.yaml``: rules by group, each with a sign and a text that it reads."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from valuedrift_mlflow.judges.lexical.needed import needed

PATTERNS_FILE = Path(__file__).with_name("patterns.yaml")
_PIECE = re.compile(r"<([a-z_]+)>")


class Rule(NamedTuple):
    """A pattern, the side that it takes (0: none), a text that it reads, and what a text must have for it."""

    pattern: re.Pattern[str]
    sign: int
    says: str
    needed: tuple[tuple[str, ...], ...]

    def found(self, text: str) -> bool:
        """Whether a text has the pattern."""
        for words in self.needed:
            for word in words:  # no `any`: it costs more than what it would look at
                if word in text:
                    break
            else:
                return False
        return self.pattern.search(text) is not None


def _rule(pattern: str, sign: int, says: str) -> Rule:
    return Rule(re.compile(pattern), sign, says, needed(pattern))


@cache
def _groups() -> dict[str, tuple[Rule, ...]]:
    groups = yaml.safe_load(PATTERNS_FILE.read_text(encoding="utf-8"))
    pieces: dict[str, str] = {}

    def written(pattern: str) -> str:
        return _PIECE.sub(lambda match: pieces.get(match[1], match[0]), pattern)

    for name, piece in groups.pop("pieces").items():
        pieces[name] = written(piece if isinstance(piece, str) else f"(?:{'|'.join(piece)})")
    return {
        name: tuple(_rule(written(rule["pattern"]), rule.get("sign", 0), rule["says"]) for rule in rules)
        for name, rules in groups.items()
    }


def rules(group: str) -> tuple[Rule, ...]:
    """The rules of a group, in the order in which they decide."""
    return _groups()[group]


@cache
def any_of(group: str) -> re.Pattern[str]:
    """One pattern for all rules of a group."""
    return re.compile("|".join(rule.pattern.pattern for rule in rules(group)))


def found(group: str, text: str) -> bool:
    """Whether a text has a rule of a group."""
    return any(rule.found(text) for rule in rules(group))


def sign(group: str, text: str) -> int:
    """The sign of the first rule that a text has, 0 where it has none."""
    return next((rule.sign for rule in rules(group) if rule.found(text)), 0)
