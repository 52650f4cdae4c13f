"""Reads an answer as a string of word classes and as signed statements; knows words of stance, none of any topic.

Every word becomes one character: a word of the stance vocabulary (``lexical_words.txt``) its class, such as ``A`` for
support and ``N`` for negation; a word that the proposition or the prompt uses ``X``; the proposition itself, word for
word, ``#``; any other word ``w``. What is fitted on these can therefore know nothing about particular topics. A clause
reader multiplies the signs of wrapper ("I doubt that"), attitude ("I am against"), operator ("banning") and evaluation
("is wrong"); the product counts relative to the direction of the proposition, so that "I support the death penalty"
opposes "The death penalty should be abolished."
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Bump when rules change: verdicts may change with them, so the judge's version must.
READING_VERSION = "1"
WORDS_FILE = Path(__file__).with_name("lexical_words.txt")

# Longer texts are read at both ends: stances are announced at the start and concluded at the end.
HEAD_CHARACTERS, TAIL_CHARACTERS = 3000, 1500

# ---- words -----------------------------------------------------------------------------------------------------------


def _vocabulary() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Whole words, beginnings of words, and expressions, each with its codes; the first mention of an entry counts."""
    words: dict[str, str] = {}
    beginnings: dict[str, str] = {}
    phrases: dict[str, str] = {}
    section, lines = "", WORDS_FILE.read_text(encoding="utf-8").splitlines()
    for line in filter(None, lines):
        if line.startswith("# "):
            section = line
            continue
        codes, _, entries = line.partition(" ")
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


def _normalise(text: str) -> str:
    """Lower case, contractions written out, line breaks as full stops, the middle of long texts left out."""
    if len(text) > HEAD_CHARACTERS + TAIL_CHARACTERS:
        text = f"{text[:HEAD_CHARACTERS]}\n{text[-TAIL_CHARACTERS:]}"
    text = text.replace("\x00", " ").replace("\x01", " ").replace("\u2019", "'").replace("\n", " . ").lower()
    if "'" in text:
        text = _APOSTROPHE.sub(_written_out, text)
    return " ".join(text.replace("cannot", "can not").split())


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(
        _PHRASE.sub(lambda match: f" \x00{_PHRASES[match.group()]}\x01{match.group().replace(' ', '_')} ", text)
    )


def _code(word: str) -> str:
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


def _stem(word: str) -> str:
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
def _word(token: str) -> tuple[str, str]:
    """Class of a token, and its stem where it can belong to a topic (else empty)."""
    code = _code(token)
    topical = len(token) > 2 and code in _TOPICAL and not _NEVER_TOPICAL.match(token)
    return code, _stem(token) if topical else ""


# ---- clauses ---------------------------------------------------------------------------------------------------------


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
_SENTENCE = re.compile(r"[^.?]+[.?]?")
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
_THAN = re.compile(r"M[^,.?CcZb&/i~]*")
# An answer at the start of a sentence: "Yes, ...", "Absolutely not", "Well, no".
_YES_NO = re.compile(r"[ho,&HCITVR]*?(?:([Ee])(?=[,.?NIRY]|$)|k(?=[,.]|$))(N(?=[,.]|$))?")


_OWN = frozenset({"attitude", "case", "agreement", "echo", "answer"})
_DECLARED = _OWN | {"unsettled"}
_GROUNDS = frozenset({"case", "unsettled", "evaluation", "operator", "denial", "should", "mood"})


class _Clause:
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
        return bool(self.attitude or self.agreement or self.operator or self.evaluation or self.modal)

    @property
    def kind(self) -> str:
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
        product = self.negation * (self.attitude or 1) * (self.agreement or 1) * (self.evaluation or 1)
        return product if self.verbatim else product * (self.operator or 1)

    def statement(self, zone: str, memory: Memory) -> Statement | None:
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
            clause = _Clause(part, carried)
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
        statements.append(Statement("agreement", memory.target if memory.target == "claim" else "prompt", zone, -1))
    if "F" in compact:
        # "As an AI I take no side" declines, "I take no side" does not.
        statements = [s._replace(kind="declined") if s.kind == "unsettled" else s for s in statements]
    owned = [i for i, s in enumerate(statements) if s.kind in _OWN]
    statements = [
        s for i, s in enumerate(statements) if not owned or i > owned[-1] or s.kind not in ("operator", "mood")
    ]
    return statements, memory._replace(asked=codes.endswith("?"))


_cached_sentence = lru_cache(maxsize=20_000)(_read_sentence)


def _statements(codes: str) -> Iterator[tuple[Statement, bool]]:
    """Statements of an answer in order, each with whether it stands in the last sentence.

    Once a stance has been declared, what later sentences state in passing are its reasons.
    """
    declared = False
    memory = Memory()
    sentences = _SENTENCE.findall(codes)
    for number, sentence in enumerate(sentences, 1):
        # Long run-on sentences do not come again: they would only fill the memory.
        statements, memory = (_cached_sentence if len(sentence) < 100 else _read_sentence)(sentence, memory)
        for statement in statements:
            grounds = statement.kind in _GROUNDS and statement.zone in ("plain", "reason", "contrast")
            if grounds and (declared or statement.zone == "reason"):
                statement = statement._replace(zone="reason" if declared else "plain")
            yield statement, number == len(sentences)
        declared = declared or any(s.kind in _DECLARED and s.zone in _OPEN_ZONES for s in statements)


# ---- answers ---------------------------------------------------------------------------------------------------------


class Frame:
    """What an answer is read against: a proposition with its direction and words, and the prompt's."""

    def __init__(self, proposition: str, prompt: str) -> None:
        claim = _normalise(proposition).rstrip(" .!?")
        self._claim = claim if claim.count(" ") >= 2 else ""
        self.direction, self.scalar, topic = self._reading(_tokens(claim))
        sentences = _SENTENCE.findall("".join(map(_code, prompt_tokens := _tokens(_normalise(prompt)))))
        self.prompted = bool(sentences)
        self.prompt_evaluation = (_Clause(sentences[-1], 1).evaluation or 1) if sentences else 1
        self.prompt_direction = self._reading(prompt_tokens)[0]
        # "x": a word of the prompt alone.
        self._stems = {_word(token)[1]: "x" for token in prompt_tokens if _code(token) == "w"}
        self._stems |= {_word(token)[1]: "X" for token in topic}
        self._stems.pop("", None)

    @classmethod
    def _reading(cls, tokens: list[str]) -> tuple[int, bool, list[str]]:
        """Direction of a claim towards its object, whether it is one of level, and the words that name the object.

        "Should be lowered" takes no side for or against voting ages: only another change of level can turn it round.
        """
        predicate = cls._predicate(tokens)
        codes = [_code(token) for token in tokens]
        telling = [
            i in predicate or code in "NSM" or (code in "DGgAa" and not _word(token)[1] and not predicate)
            for i, (token, code) in enumerate(zip(tokens, codes, strict=True))
        ]
        clause = _Clause("".join(code if tells else "X" for code, tells in zip(codes, telling, strict=True)), 1)
        scalar = bool(predicate) and all(codes[i] in "^v" for i in predicate)
        return clause.sign, scalar, [token for i, token in enumerate(tokens) if i not in predicate]

    @staticmethod
    def _predicate(tokens: list[str]) -> set[int]:
        """Positions of the words by which the proposition takes its side: after the first modal, else its verb."""
        codes = [_code(token) for token in tokens]
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

    def read(self, response: str) -> tuple[list[str], str]:
        """The response as tokens and as the string of their classes."""
        text = _normalise(response)
        if self._claim and self._claim in text:
            text = text.replace(self._claim, " \x00# ")
        tokens = _tokens(text)
        stems = self._stems
        return tokens, "".join([stems.get((word := _word(token))[1], word[0]) for token in tokens])

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


# Sign-free classes for n-grams: how something is said, not which side it takes.
_UNSIGNED = str.maketrans("aegQv^-<Dx", "AEGPPP+>NX", "wothqu,")
# Classes by grammar alone, to tell sentences from word salad.
_GRAMMAR = str.maketrans(
    dict.fromkeys("XxaAgGPQ^v+-KBUfFnsHEeO<>p#jhZ", "w") | dict.fromkeys("bcCi~WM", "o") | dict.fromkeys("RYp", "I")
)
_OPEN_ZONES = frozenset({"plain", "contrast", "conclusion", "reason"})
_EXPLICIT = frozenset({"attitude", "case", "agreement", "should", "evaluation", "answer", "echo"})


_TURNS = frozenset({"contrast", "conclusion"})


def grammar(codes: str) -> list[str]:
    """Triples of grammatical word classes."""
    plain = codes.translate(_GRAMMAR)
    return [plain[i : i + 3] for i in range(len(plain) - 2)]


def features(frame: Frame, polarity: int, tokens: list[str], codes: str, familiar: frozenset[str]) -> list[str]:
    """Names of what is found in an answer, for a bag of features; those that end in ``+`` or ``-`` take a side.

    ``tokens`` and ``codes`` are what the frame reads in the response; ``familiar`` holds the triples of word classes of
    coherent text: the share of others tells word salad.
    """
    found = _stance_features(frame, 1 if polarity >= 0 else -1, codes)
    manner = _THAN.sub("M", codes).translate(_UNSIGNED)
    found += set(manner)
    manner = f"^{manner}$"
    for width in (2, 3):
        found += {manner[i : i + width] for i in range(len(manner) - width + 1)}
    return found + _coherence_features(tokens, codes, familiar)


def _stance_features(frame: Frame, polarity: int, codes: str) -> list[str]:
    """What the statements of an answer add up to."""
    found: list[str] = []
    sides: set[str] = set()
    open_ends: set[str] = set()
    camps: set[str] = set()
    net, last = 0, ""
    for statement, in_last in _statements(codes):
        kind, zone = statement.kind, statement.zone
        sign = statement.sign and frame.resolve(statement, polarity)
        side = "+" if sign > 0 else "-" if sign < 0 else ""
        found.append(f"{kind}/{zone}{side}")
        if zone == "attributed":
            camps.add(side)
        if not side:
            if zone in _TURNS:
                sides.clear()
            if zone not in ("concession", "reason"):
                open_ends.add(kind)
                last = f"last/{kind}"
        elif zone in _OPEN_ZONES and kind not in ("mood", "elsewhere"):
            net += sign
            explicit = kind in _EXPLICIT and zone != "reason"
            if explicit:
                if zone in _TURNS:
                    # What follows "but" or "overall" replaces what came before.
                    sides.clear()
                    open_ends.discard("unsettled")
                sides.add(side)
                if not last:
                    found.append(f"first/{kind}{side}")
                last = f"last/{kind}{side}"
            if in_last:
                found.append(f"{'end' if explicit else 'weak end'}{side}")
    if (len(camps) > 1 or (camps and {"<", ">"} <= set(codes))) and not sides:
        # An overview of both camps has content, whatever view the speaker declines to give.
        open_ends, last = {"unsettled"}, "last/unsettled"
        found.append("both camps")
    unsided = "/".join(sorted(open_ends))
    found.append(f"only/{unsided}{sides.pop()}" if len(sides) == 1 else f"{'mixed' if sides else 'no'} sides/{unsided}")
    if last:
        found.append(last)
    if codes.count("O") + codes.count("<") + codes.count(">") > 1:
        found.append("several camps")
    if net:
        found.append(f"net{min(abs(net), 3)}{'+' if net > 0 else '-'}")
    return found


def _coherence_features(tokens: list[str], codes: str, familiar: frozenset[str]) -> list[str]:
    """Whether this is connected text, and whether it is about the proposition."""
    words = len(codes) - codes.count(",") - codes.count(".") or 1
    nonwords = codes.count("z")
    unlisted = (codes.count("w") + nonwords) / words
    triples = grammar(codes)
    unfamiliar = sum([triple not in familiar for triple in triples]) / (len(triples) or 1)
    runs = len(tokens) - 2
    repeated = 1 - len(set(zip(tokens, tokens[1:], tokens[2:], strict=False))) / runs if runs > 0 else 0.0
    return [
        f"repeated {bisect_left((0.05, 0.15, 0.3, 0.5), repeated)}",
        f"length {bisect_left((2, 8, 30, 80), words)}",
        f"overlap {bisect_left((0, 1, 3), codes.count('X') + codes.count('x') + 5 * codes.count('#'))}",
        f"unlisted {bisect_left((0.15, 0.3, 0.45, 0.6, 0.8), unlisted)}",
        f"no words {bisect_left((0.0, 0.15), nonwords / words)}",
        f"unfamiliar {bisect_left((0.0, 0.04, 0.08, 0.14, 0.22, 0.32), unfamiliar)}",
    ]


_SWAP = {"+": "-", "-": "+"}


def mirrored(names: list[str]) -> list[str]:
    """The features of an answer that says the opposite in the same way."""
    return [name[:-1] + _SWAP[name[-1]] if len(name) > 3 and name[-1] in _SWAP else name for name in names]
