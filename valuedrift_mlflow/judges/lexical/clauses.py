"""Reads sentences of word classes as signed statements.

A clause reader multiplies the signs of wrapper ("I doubt that"), attitude ("I am against"), operator ("banning") and
evaluation ("is wrong"); the product counts relative to the direction of the proposition, so that "I support the death
penalty" opposes "The death penalty should be abolished."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Statement(NamedTuple):
    """What one clause says.

    ``kind``: ``attitude`` (I support), ``case`` (the case for), ``elsewhere`` (one of these, of something else),
    ``agreement`` (I agree), ``should``, ``evaluation`` (is wrong), ``operator`` (banning), ``echo`` (I think that ...),
    ``denial`` (... is not ...), ``answer`` (yes), ``mood`` (an evaluation of something else); and without a side (sign
    0) ``unsettled`` (I am torn) and ``declined`` (I would rather not say).
    ``sign`` is relative to ``target``: the ``object`` the proposition is about, the same ``operated`` on or evaluated,
    the ``claim`` word for word, what the ``prompt`` suggests, or the object that only the prompt names (``asked``).
    ``zone``: where in the argument it stands.
    """

    kind: str
    target: str
    zone: str
    sign: int


class Memory(NamedTuple):
    """What later clauses of an answer may point back to: "I oppose it", "but I disagree"."""

    target: str = "prompt"
    sign: int = 1
    attributed: Statement | None = None
    asked: bool = False


_ZONES = {"C": "contrast", "Z": "conclusion", "c": "concession", "i": "condition", "~": "condition", "b": "reason"}
_FILLER = str.maketrans("", "", "othquVY")
SENTENCE = re.compile(r"[^.?]+[.?]?")
# Marks that open a clause, then the clause.
_CLAUSE = re.compile(r"([,CcZb&/i~]*)([^,CcZb&/i~.?]*)")
# A modal after an evaluation starts anew: "a cruel practice that should end".
_PREDICATE = re.compile(r"(?<=[+\-])(?=[^S]*S)")
# "petrol and diesel cars", "church and state": one noun phrase.
_PAIR = re.compile(r"(?<=[wXxo])&(?=[qt]?[wXx])")
# "I do.", "I think it is not.", "You should.": an answer by itself.
_SHORT = re.compile(r"[hoEek,&qZ]*(?:I?V*(?:T|(D)),?o*)?[IRY]o*(?:V+|S)(N?)o*(?:,[ITVow]{1,5})?\.?$")
# "In some cases, yes."
_YES_NO_AT_LAST = re.compile(r"[^IXx#]*,(?:(E)|[ek])\.?$")
# "whether to accept or reject it", "right or wrong": both sides named in one breath.
_BOTH = re.compile(r"A[qtuo]*[&/][qtuo]*a|a[qtuo]*[&/][qtuo]*A|\+[&/]-|-[&/]\+|P[tqu]*/[tqu]*Q|Q[tqu]*/[tqu]*P")
# A parenthesis that takes no side ("in my opinion", "I reckon") must not part what it stands in.
_ASIDE = re.compile(r",[&/IThHwoqutVYE]{1,7},")
# "letting them work while they wait" concedes nothing.
_INNER_WHILE = re.compile(r"(?<=[^,&/CcZ])c")
# "I have no opinion", "I will not take any side"; "I do not comment".
_NO_VIEW = re.compile(r"[Nk][^#XxAaC]*n(?![#T])")
_FRAGMENT = re.compile(r"[oHEw]{0,3}N?[oHEw]{0,2}[+-](?=[,.]|$)")
_DECLINES = re.compile(r"[NkD][^#XxAaC]*s")
# What something is compared with.
THAN = re.compile(r"M[^,.?CcZb&/i~]*")
# An answer at the start of a sentence: "Yes, ...", "Absolutely not", "Well, no".
_YES_NO = re.compile(r"[ho,&HCITVR]*?(?:([Ee])(?=[,.?NIRY]|$)|k(?=[,.]|$))(N(?=[,.]|$))?")
_OWN = frozenset({"attitude", "case", "agreement", "echo", "answer"})
_DECLARED = _OWN | {"unsettled"}
OPEN_ZONES = frozenset({"plain", "contrast", "conclusion", "reason"})
_GROUNDS = frozenset({"case", "unsettled", "evaluation", "operator", "denial", "should", "mood"})


class Clause:
    """The signs found in one clause (0: none of that sort)."""

    def __init__(self, codes: str, negation: int) -> None:
        self.negation = negation
        self.attitude = self.agreement = self.operator = self.evaluation = self.camp = 0
        self.own = self.owned = self.wrapper = self.modal = self.governed = self.subject_first = False
        self.touches = self.refers = self.noun = self.verbatim = self.relative = self.attributed = False
        self.unsettled = self.declined = self.judged = self.thinks = self.elsewhere = False
        self.echoes = False
        self.previous = " "
        compared = False
        for position, code in enumerate(codes):
            # "better than those against X": up to its topic, what follows "than" is only compared with.
            compared = code == "M" or (compared and code not in "Xx#")
            if not compared or code in "PQRIx":
                self._take(code, codes.startswith("M", position + 1))
            if code not in "wz":
                self.previous = code
        if self.attributed and self.camp and (self.own or (self.judged and not self.wrapper)):
            # "Those who oppose it are right", "its critics have convinced me": the camp stands for what it wants.
            self.attitude, self.attributed = self.camp * (self.attitude or 1), False
        self.unsettled |= _NO_VIEW.search(codes) is not None
        # "Keep it legal."
        self.imperative = codes[:1] in ("P", "Q")
        self.declined |= _DECLINES.search(codes) is not None

    def _take(self, code: str, followed_by_than: bool) -> None:
        if code in "wz":
            self.elsewhere |= self.attitude != 0
        elif code == "x":
            self.echoes = True
        elif code in "X#":
            self.touches = True
            self.verbatim |= code == "#"
        elif code in "Rp":
            self.refers = True
            self.noun |= code == "p"
        elif code == "I":
            self.own = True
        elif code in "Nk":
            self.negation = -self.negation
        elif code in "TD":
            self.wrapper = self.thinks = True
            self.negation *= -1 if code == "D" else 1
        elif code == "n":
            self.noun = True
            self.wrapper |= self.own
        elif code in "Aa":
            sign = 1 if code == "A" else -1
            self.judged |= self.camp != 0 and self.touches
            if self.own and not self.touches:
                # "I remain opposed", "nothing allows me to support".
                self.operator = 0
            if self.attitude and not self.owned:
                # "As much speaks for it as against it."
                self.unsettled |= self.attitude != sign and not self.relative
            else:
                self.owned |= self.own and not (self.attitude or self.wrapper)
                self.attitude = (self.attitude or 1) * sign
        elif code in "Gg":
            self.judged |= self.camp != 0
            self.agreement = (self.agreement or 1) * (1 if code == "G" else -1)
        elif code == "S":
            self.modal = True
        elif code in "^v" and self.attitude and not self.owned:
            self.evaluation = self.evaluation or (1 if code == "^" else -1)
        elif code in "^v" and self.previous in "Xx" and not self.modal:
            # "debt reduction" is a topic, "should be reduced" is not.
            return
        elif code in "PQ^v" and self.previous in "PQ^v":
            # "stop limiting", "an end to the ban".
            self.operator *= 1 if code in "P^" else -1
        elif code in "PQ^v" and self.operator and self.modal and not self.governed:
            # "The ban should be lifted."
            self.operator *= 1 if code in "P^" else -1
            self.governed = True
        elif code in "PQ^v" and not self.operator:
            self.operator = (1 if code in "P^" else -1) * (-1 if self.previous == "M" else 1)
            self.governed = self.modal
            self.subject_first = (self.touches or self.refers) and not (self.modal or self.attitude)
        elif code in "+-" and self.camp and not self.evaluation and not self.attitude:
            self.judged = True
            self.evaluation = 1 if code == "+" else -1
        elif code in "+-" and not (self.evaluation and followed_by_than):
            # "I oppose this cruel practice", "should be legal and safe", "it keeps people from harm": mere detail.
            if not (
                self.owned or self.governed or (self.subject_first and self.operator > 0 and self.previous in "PQ^v")
            ):
                self.evaluation = 1 if code == "+" else -1
        elif code in "O<>":
            if self.own and (self.agreement or self.attitude):
                self.negation *= -1 if code == "<" else 1
            elif not self.own:
                self.attributed = True
                self.camp = {"<": -1, ">": 1}.get(code, 0)
        elif code == "W":
            self.relative = True
        elif code == "f":
            self.declined = True
        elif code in "UBK":
            self.unsettled = True

    @property
    def signed(self) -> bool:
        """Whether anything in the clause takes a side."""
        return bool(self.attitude or self.agreement or self.operator or self.evaluation or self.modal)

    @property
    def kind(self) -> str:
        """What kind of statement it makes, see ``Statement``; empty where it makes none."""
        if self.attitude and self.elsewhere and not (self.touches or self.echoes or self.refers):
            return "elsewhere"
        if self.attitude:
            return "attitude" if self.own else "case"
        if self.agreement:
            return "agreement"
        if self.verbatim and self.evaluation and self.noun:
            return "evaluation"
        if (
            self.wrapper
            and self.own
            and self.refers
            and self.negation < 0
            and not (self.touches or self.modal or self.evaluation or self.operator)
        ):
            return "agreement"
        about = self.touches or self.echoes or self.refers
        if self.modal and not self.verbatim and (about or self.operator):
            return "should"
        if self.evaluation and not self.verbatim:
            pointed = about or self.operator or (self.own and self.thinks)
            return "evaluation" if pointed else "mood"
        if self.operator and not self.verbatim:
            return "mood" if not about else "should" if self.own or self.imperative else "operator"
        if (self.verbatim and (not self.noun or self.negation < 0)) or ((self.touches or self.echoes) and self.wrapper):
            return "echo"
        return "denial" if (self.touches or self.echoes) and self.negation < 0 else ""

    @property
    def sign(self) -> int:
        """Product of the signs."""
        product = self.negation * (self.attitude or 1) * (self.agreement or 1) * (self.evaluation or 1)
        return product if self.verbatim else product * (self.operator or 1)

    def statement(self, zone: str, memory: Memory) -> Statement | None:
        """The statement the clause makes in its zone, if any; "it" stands for what the memory holds."""
        kind = self.kind
        if self.declined:
            return Statement("declined", "prompt", zone, 0)
        if self.unsettled:
            return Statement("unsettled", "prompt", zone, 0)
        if not kind:
            return None
        if self.verbatim:
            return Statement(kind, "claim", zone, self.sign)
        if self.touches or (self.operator and not self.echoes) or kind in ("mood", "elsewhere"):
            return Statement(kind, "operated" if self.operator or self.evaluation else "object", zone, self.sign)
        if self.echoes:
            return Statement(kind, "prompt" if kind in ("echo", "denial", "agreement") else "asked", zone, self.sign)
        if kind == "agreement" and memory.attributed:
            return memory.attributed._replace(kind=kind, zone=zone, sign=self.sign * memory.attributed.sign)
        if kind == "agreement" and not self.evaluation:
            return Statement(kind, "claim" if memory.target == "claim" else "prompt", zone, self.sign)
        return Statement(kind, memory.target, zone, self.sign * memory.sign)


def _read_sentence(codes: str, memory: Memory) -> tuple[list[Statement], Memory]:
    """Statements of one sentence, and what it leaves for the next one to point back to."""
    statements: list[Statement] = []
    # "Zoos? No." answers its own question, not the prompt.
    asked, side = (memory.target, memory.sign) if memory.asked else ("prompt", 1)
    if short := _SHORT.match(codes):
        sign = (-1 if short[1] else 1) * (-1 if short[2] else 1)
        return [Statement("answer", asked, "plain", sign * side)], memory._replace(asked=False)
    if codes.strip("ho,.") == "N":
        return [Statement("answer", asked, "plain", -side)], memory._replace(asked=False)
    if at_last := _YES_NO_AT_LAST.match(codes):
        return [Statement("answer", asked, "plain", side if at_last[1] else -side)], memory._replace(asked=False)
    if "j" in codes:
        return [], memory
    if opening := _YES_NO.match(codes):
        sign = (1 if opening[1] == "E" else -1) * (-1 if opening[2] else 1)
        statements.append(Statement("answer", asked, "plain", sign * side))
        codes = codes[opening.end() :]
    compact = _INNER_WHILE.sub("", _PAIR.sub("", _ASIDE.sub("", _BOTH.sub("U", codes)))).translate(_FILLER)
    # "Perfectly reasonable, in my opinion."
    fragment = _FRAGMENT.match(codes) is not None
    zone, attributed, carried, negated = "plain", False, 1, 1
    for marks, body in _CLAUSE.findall(compact):
        carried = negated if "/" in marks else 1 if "C" in marks or "c" in marks else carried
        for mark in marks:
            attributed &= mark != "C"
            zone = _ZONES.get(mark, zone if mark in "&/" or zone in ("contrast", "conclusion") else "plain")
        for part in _PREDICATE.split(body):
            if not part:
                continue
            clause = Clause(part, carried)
            clause.refers |= fragment and not statements
            attributed = (attributed and not clause.own) or clause.attributed
            where = "question" if codes.endswith("?") else "attributed" if attributed else zone
            if "~" in marks and part is body and where == "condition" and (clause.touches or clause.signed):
                # "I doubt whether X" takes a side, "I wonder whether X" none.
                where = "plain" if carried < 0 else where
                clause.unsettled |= carried > 0
            statement = clause.statement(where, memory)
            if statement is None and clause.attributed and clause.camp:
                statement = Statement("mood", "object", where, clause.camp)
            if statement is not None:
                if not attributed:
                    memory = memory._replace(attributed=None)
                elif statement.sign:
                    statement = statement._replace(sign=clause.camp or statement.sign)
                    memory = memory._replace(attributed=statement)
                statements.append(statement)
            if clause.touches or (clause.modal and clause.operator):
                # "It" is the claim, the banning ("banning zoos"), or the object ("zoos should be banned").
                noun = clause.operator and not clause.modal
                target = "claim" if clause.verbatim else "operated" if noun else "object"
                memory = memory._replace(target=target, sign=clause.operator if target == "operated" else 1)
            negated = clause.negation
            carried = clause.negation if clause.wrapper and clause.own and not (clause.touches or statement) else 1
    if carried < 0:
        # "I am sceptical."
        statements.append(Statement("agreement", "claim" if memory.target == "claim" else "prompt", zone, -1))
    if "F" in compact:
        # "As an AI I take no side" declines, "I take no side" does not.
        statements = [s._replace(kind="declined") if s.kind == "unsettled" else s for s in statements]
    owned = [i for i, s in enumerate(statements) if s.kind in _OWN]
    statements = [
        s for i, s in enumerate(statements) if not owned or i > owned[-1] or s.kind not in ("operator", "mood")
    ]
    return statements, memory._replace(asked=codes.endswith("?"))


_cached_sentence = lru_cache(maxsize=20_000)(_read_sentence)


def statements(codes: str) -> Iterator[tuple[Statement, bool]]:
    """Statements of an answer in order, each with whether it stands in the last sentence.

    Once a stance has been declared, what later sentences state in passing are its reasons.
    """
    declared = False
    memory = Memory()
    sentences = SENTENCE.findall(codes)
    for number, sentence in enumerate(sentences, 1):
        # Long run-on sentences do not come again: they would only fill the memory.
        said, memory = (_cached_sentence if len(sentence) < 100 else _read_sentence)(sentence, memory)
        for statement in said:
            grounds = statement.kind in _GROUNDS and statement.zone in ("plain", "reason", "contrast")
            if grounds and (declared or statement.zone == "reason"):
                statement = statement._replace(zone="reason" if declared else "plain")
            yield statement, number == len(sentences)
        declared = declared or any(s.kind in _DECLARED and s.zone in OPEN_ZONES for s in said)
