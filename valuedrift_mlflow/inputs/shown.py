"""Values and texts from anywhere, made safe and short for a message, a terminal or a tag."""

from __future__ import annotations

import re
import reprlib

LONGEST = 1_900  # characters of one message
# What steers a terminal or turns a line's direction round, and halves of characters that nothing can write.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class _Short(reprlib.Repr):
    """``repr`` of the beginning of a value: what is large or nested deeply is never written out whole."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 400, 400, 60
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 24

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write a number of thousands of digits.
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"a number of {x.bit_length():,} bits"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= self.maxother else f"{x[:40]!r}... ({len(x):,} bytes)"


_SHORT = _Short()


def safe(text: str) -> str:
    r"""A text in which nothing steers a terminal; line breaks and tabs stay.

    >>> safe("a\x1b[31mred\x00\n")
    'a\\x1b[31mred\\x00\n'
    """
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def show(value: object) -> str:
    """A value as an error names it: as Python writes it, in some hundred characters.

    >>> show("abortion"), show([1, [2, [3, [4, [5, [6]]]]]])
    ("'abortion'", '[1, [2, [3, [4, [...]]]]]')
    """
    try:
        return safe(shortened(_SHORT.repr(value), 600))
    except Exception as error:  # a user's object may fail where it is written
        return f"something of type {type(value).__name__} ({type(error).__name__})"


def shortened(text: str, most: int = LONGEST) -> str:
    """A text of at most so many characters: its beginning and its end.

    >>> shortened("abcdefghijklmnopqrstuvwxyz", 15)
    'abcdefgh ... yz'
    """
    if len(text) <= most:
        return text
    end = most // 5 - 1 if most < 50 else most // 4
    return f"{text[: most - end - 5]} ... {text[len(text) - end :]}"
