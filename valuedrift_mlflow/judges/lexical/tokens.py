"""Words of an answer and their classes: every word becomes one character, whatever the topic.

A word of the stance vocabulary (``words.txt``) becomes the character of its class, such as ``A`` for *for* and ``N``
for *not*; any other word ``w``, what is hardly a word ``z``. ``classes.csv`` names them all. So patterns over classes
are regular expressions over characters, and what is fitted on these knows nothing of any topic.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

WORDS_FILE = Path(__file__).with_name("words.txt")
CLASSES_FILE = Path(__file__).with_name("classes.csv")

# Longer texts are read at both ends: stances are announced at the start and concluded at the end.
HEAD_CHARACTERS, TAIL_CHARACTERS = 3000, 1500


def _vocabulary() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Whole words, beginnings of words, and expressions, each with its codes; the first mention of an entry counts."""
    with CLASSES_FILE.open(encoding="utf-8", newline="") as file:
        named = {row["name"]: row["code"] for row in csv.DictReader(file)}
    words: dict[str, str] = {}
    beginnings: dict[str, str] = {}
    phrases: dict[str, str] = {}
    section, lines = "", WORDS_FILE.read_text(encoding="utf-8").splitlines()
    for line in filter(None, lines):
        if line.startswith("# "):
            section = line
            continue
        classes, _, entries = line.partition(" ")
        codes = "".join(named[name] for name in classes.split("+"))
        if section.startswith("# Expressions"):
            for entry in entries.split("|"):
                phrases.setdefault(entry, codes)
        else:
            for entry in entries.split():
                (beginnings if entry.endswith("*") else words).setdefault(entry.rstrip("*"), codes)
    return words, beginnings, phrases


class _Trie(dict[str, "_Trie"]):
    """Letters to the letters that may follow; the key ``""`` marks the end of a word."""

    def pattern(self) -> str:
        branches = [re.escape(letter) + rest.pattern() for letter, rest in self.items() if letter]
        if not branches:
            return ""
        body = branches[0] if len(branches) == 1 and "" not in self else f"(?:{'|'.join(branches)})"
        return body + "?" if "" in self else body


def _any_of(words: Iterable[str]) -> str:
    """One regular expression for many words, longest first, that gives up at the first letter none of them has."""
    trie = _Trie()
    for word in words:
        node = trie
        for letter in word:
            node = node.setdefault(letter, _Trie())
        node[""] = _Trie()
    return trie.pattern()


_WORDS, _BEGINNINGS, _PHRASES = _vocabulary()
_PHRASE = re.compile(rf"(?<![\w']){_any_of(_PHRASES)}(?![\w'])")
# \x00 introduces codes that are already decided, \x01 the expression they stand for.
_TOKEN = re.compile(r"\x00\S+|[^\W_]+|[.!?]+|[,;:()\u2014\u2013]")
_APOSTROPHE = re.compile(r"([^\W_]+)'([a-z]+)")
_CONTRACTED_NOT = {"won": "will not", "can": "can not", "shan": "shall not", "ain": "is not"}
_CONTRACTED = {"m": " am", "re": " are", "ve": " have", "ll": " will", "d": " would"}
_BEFORE_IS = {"it", "that", "there", "what", "here", "he", "she", "who", "this", "where", "how"}
_VOWEL = re.compile(r"[aeiouy]")
_SUFFIX = re.compile(r"(?:i[sz]ations?|ments?|ingly|ings?|ers?|ions?|ies|ied|ed|es|ly|al|s|e|y)$")


def _written_out(match: re.Match[str]) -> str:
    head, tail = match.group(1), match.group(2)
    if tail == "t" and head.endswith("n"):
        return _CONTRACTED_NOT.get(head) or _CONTRACTED_NOT.get(head[:-1]) or f"{head[:-1]} not"
    if tail == "s":
        return f"{head} is" if head in _BEFORE_IS else "let us" if head == "let" else head
    return head + _CONTRACTED[tail] if tail in _CONTRACTED else head


def ends(text: str) -> str:
    """The text without the middle where it is long."""
    if len(text) > HEAD_CHARACTERS + TAIL_CHARACTERS:
        return f"{text[:HEAD_CHARACTERS]}\n{text[-TAIL_CHARACTERS:]}"
    return text


def normalise(text: str) -> str:
    """Lower case, contractions written out, line breaks as full stops."""
    text = text.replace("\x00", " ").replace("\x01", " ").replace("\u2019", "'").replace("\n", " . ").lower()
    if "'" in text:
        text = _APOSTROPHE.sub(_written_out, text)
    return " ".join(text.replace("cannot", "can not").split())


def tokenise(text: str) -> list[str]:
    """Words, marks and expressions of a normalised text; an expression stands with its classes before it."""
    marked = _PHRASE.sub(lambda match: f" \x00{_PHRASES[match[0]]}\x01{match[0].replace(' ', '_')} ", text)
    return _TOKEN.findall(marked)


@lru_cache(maxsize=50_000)
def class_of(word: str) -> str:
    """Class of a token whatever the proposition; ``w`` for unlisted words, ``z`` for what is hardly a word."""
    if word[0] == "\x00":
        return word[1:].partition("\x01")[0]
    if word in _WORDS:
        return _WORDS[word]
    if not word[0].isalnum():
        return "?" if "?" in word else "." if word[0] in ".!" else ","
    for length in range(len(word), 2, -1):
        if word[:length] in _BEGINNINGS:
            return _BEGINNINGS[word[:length]]
    return "w" if len(word) < 25 and (not word.isascii() or word.isdecimal() or _VOWEL.search(word)) else "z"


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Crude common beginning of a word's forms: "executions" and "executing" both give "execut"."""
    if word[0] == "\x00":
        return word
    return (_SUFFIX.sub("", word) if len(word) > 4 else word.rstrip("s") if len(word) > 3 else word)[:6]


# Classes whose words may belong to a topic: where a proposition uses them, they are the topic's.
_TOPICAL = frozenset("wPQ^v+-zKHEAaOsn<>yTDGg")
_NEVER_TOPICAL = re.compile(
    r"support|oppos|agree|disagree|think|believ|doubt|against|favou?r|back|approv|reject|endorse|object|opinion|view"
    r"|side|position"
)


@lru_cache(maxsize=50_000)
def classed(token: str) -> tuple[str, str]:
    """Class of a token, and its stem where it can belong to a topic (else empty)."""
    code = class_of(token)
    topical = len(token) > 2 and code in _TOPICAL and not _NEVER_TOPICAL.match(token)
    return code, stem(token) if topical else ""
