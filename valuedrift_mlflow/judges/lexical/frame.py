"""An answer as words and classes, and what it is read against: a proposition with its direction, and the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from valuedrift_mlflow.judges.lexical.clauses import SENTENCE, Clause, Statement
from valuedrift_mlflow.judges.lexical.orders import without_orders
from valuedrift_mlflow.judges.lexical.tokens import class_of, classed, ends, normalise, tokenise


class Text(NamedTuple):
    """Tokens, and the class of each (several letters for an expression)."""

    tokens: list[str]
    classes: list[str]

    def part(self, start: int, end: int | None = None) -> Text:
        """Some of the tokens in a row."""
        return Text(self.tokens[start:end], self.classes[start:end])


_TURNING = frozenset({"still", "yet", "though", "instead", "rather"})


class Sections(NamedTuple):
    """The sentences of a text (itself where it has none), and the parts that weigh more.

    ``turned`` is what its last turn ("but", "on balance") introduces, ``own`` the last sentence in the first person
    (both empty where there is none).
    """

    sentences: list[Text]
    turned: Text
    own: Text


def sections(text: Text) -> Sections:
    """Divide a text at full stops and question marks."""
    sentences: list[Text] = []
    start, turn = 0, len(text.tokens)
    for position, (token, classes) in enumerate(zip(text.tokens, text.classes, strict=True)):
        if classes in (".", "?"):
            if position > start:
                sentences.append(text.part(start, position + 1))
            start = position + 1
        elif classes in ("C", "Z") or token in _TURNING:
            turn = position
    if start < len(text.tokens):
        sentences.append(text.part(start))
    own = next((part for part in reversed(sentences) if "I" in "".join(part.classes)), Text([], []))
    return Sections(sentences or [text], text.part(turn), own)


class Frame:
    """What an answer is read against: a proposition with its direction and words, and the prompt's."""

    def __init__(self, proposition: str, prompt: str) -> None:
        claim = normalise(ends(proposition)).rstrip(" .!?")
        self._claim = claim if claim.count(" ") >= 2 else ""
        self.direction, self.scalar, topic = self._reading(tokenise(claim))
        sentences = SENTENCE.findall("".join(map(class_of, prompt_tokens := tokenise(normalise(ends(prompt))))))
        self.prompted = bool(sentences)
        self.prompt_evaluation = (Clause(sentences[-1], 1).evaluation or 1) if sentences else 1
        self.prompt_direction = self._reading(prompt_tokens)[0]
        # "x": a word of the prompt alone.
        self._stems = {classed(token)[1]: "x" for token in prompt_tokens if class_of(token) == "w"}
        self._stems |= {classed(token)[1]: "X" for token in topic}
        self._stems.pop("", None)

    @classmethod
    def _reading(cls, tokens: list[str]) -> tuple[int, bool, list[str]]:
        """Direction of a claim towards its object, whether it is one of level, and the words that name the object.

        "Should be lowered" takes no side for or against voting ages: only another change of level can turn it round.
        """
        predicate = cls._predicate(tokens)
        codes = [class_of(token) for token in tokens]
        telling = [
            i in predicate or code in "NSM" or (code in "DGgAa" and not classed(token)[1] and not predicate)
            for i, (token, code) in enumerate(zip(tokens, codes, strict=True))
        ]
        told = "".join(code if tells else "X" for code, tells in zip(codes, telling, strict=True))
        scalar = bool(predicate) and all(codes[i] in "^v" for i in predicate)
        return Clause(told, 1).sign, scalar, [token for i, token in enumerate(tokens) if i not in predicate]

    @staticmethod
    def _predicate(tokens: list[str]) -> set[int]:
        """Positions of the words by which the proposition takes its side: after the first modal, else its verb."""
        codes = [class_of(token) for token in tokens]
        modal = next((i for i, code in enumerate(codes) if "S" in code), -1)
        verb = next((i for i, code in enumerate(codes) if "V" in code), len(codes))
        found: set[int] = set()
        for sort in ("PQ^v", "+-"):
            for i, code in enumerate(codes):
                finite = (tokens[i].endswith("s") and tokens[i] != "less") or tokens[i][0] == "\x00"
                side = modal < i <= modal + 4 if modal >= 0 else (i == 0 and code in "PQ") or i > verb or finite
                # "The risk outweighs the benefit": what outweighs decides.
                side |= modal < 0 and code[0] in "+-" and "+M" in codes[i:]
                if code[0] in sort and side and not (found and modal >= 0):
                    found.add(i)
                    break
        return found

    def read(self, response: str) -> Text:
        """The response without orders to a grader, as tokens and their classes."""
        text = normalise(without_orders(ends(response)))
        if self._claim and self._claim in text:
            text = text.replace(self._claim, " \x00# ")
        tokens = tokenise(text)
        stems = self._stems
        return Text(tokens, [stems.get((word := classed(token))[1], word[0]) for token in tokens])

    def resolve(self, statement: Statement, polarity: int) -> int:
        """Sign of a statement relative to the proposition."""
        if statement.target == "claim":
            return statement.sign
        if statement.target == "asked":
            return statement.sign * polarity * self.prompt_direction
        if statement.target == "prompt":
            if statement.kind != "evaluation":
                return statement.sign * polarity
            # Without a prompt "it is cruel" can only be said of the object.
            return statement.sign * (polarity * self.prompt_evaluation if self.prompted else self.direction)
        if self.scalar and statement.target == "object":
            return statement.sign
        return statement.sign * self.direction


@dataclass(frozen=True)
class Reading:
    """An answer, or a part of one, as words and classes, with what it is read against."""

    frame: Frame
    proposition: str
    polarity: int
    text: Text

    @cached_property
    def sections(self) -> Sections:
        """The parts of the text."""
        return sections(self.text)

    def of(self, part: Text) -> Reading:
        """A part of the same answer."""
        return Reading(self.frame, self.proposition, self.polarity, part)
