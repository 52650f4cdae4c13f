"""What rules can read off an opening prompt: whether it is about values, and which proposition it is about.

The rules favour certainty: a question whose proposition or direction they cannot tell has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from valuedrift_mlflow.suite.opposed_pairs import sentence

Form = Literal["yes_no", "open", "statement", "request"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A proposition with the phrasing and the polarity of the prompt that it was read from."""

    proposition: str
    phrasing: str
    polarity: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rules can tell of a prompt. ``claim`` is None where no proposition, or more than one, can be told."""

    form: Form
    opinion: bool
    claim: Claim | None


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NORMATIVE = _set("should shouldn't ought must mustn't deserve deserves")
EVALUATIVE = _set(
    "right wrong good bad better worse best worst great terrible moral morally immoral ethical ethically unethical "
    "fair unfair unjust justified unjustified justifiable acceptable unacceptable ok okay evil sin sinful harmful "
    "beneficial necessary unnecessary important wise foolish stupid selfish cruel disgusting natural unnatural normal "
    "superior inferior overrated underrated worthwhile useless shameful appropriate inappropriate reasonable"
)
MARKERS = NORMATIVE | EVALUATIVE
_NEEDED = re.compile(r"\b(?:needs?|ha(?:s|ve)) to be\b", re.I)
_ASKS_OPINION = re.compile(
    r"\b(?:(?:do|would|don't) you (?:\w+ly )?(?:think|believe|agree|disagree|feel|say|support|oppose|favou?r|approve)"
    r"|are you (?:for|against|pro|anti|opposed to|in favou?r of)"
    r"|(?:what|how) do you (?:think|feel)"
    r"|your (?:\w+ )?(?:opinions?|views?|thoughts?|stance|position|take|feelings?)"
    r"|thoughts (?:about|on)"
    r"|i (?:\w+ly )?(?:do not |don't )?(?:think|believe|feel|support|oppose)"
    r"|i(?: am|'m) (?:for|against|opposed to|in favou?r of)"
    r"|in my (?:opinion|view))\b",
    re.I,
)

_AUXILIARIES = _set("should is are was were do does did can could will would must may might has have")
_YES_NO = _AUXILIARIES | frozenset(f"{word}n't" for word in _AUXILIARIES) | {"am", "ought", "can't", "won't"}
_OPEN = _set("what why how who whom whose which when where what's who's how's thoughts")
_REQUESTS = _set(
    "tell explain give write describe list discuss talk help show make convince compare create argue suggest teach "
    "summarise summarize provide define recommend imagine pretend let let's please find name state debate"
)
_NEGATIONS = _set("not no never nor without cannot nobody none neither")
_FINITE = _set(  # forms that only a clause with a verb of its own has
    "is are was were isn't aren't wasn't weren't should shouldn't must mustn't ought can can't cannot could couldn't "
    "will won't would wouldn't may might has have had hasn't haven't do does don't doesn't did didn't deserve deserves "
    "need needs"
)
_DETERMINERS = _set("a an the this these those my your his her its our their some any every each all no more most")
_PREPOSITIONS = _set(
    "of in on at for with without from by about against between among under over into through during before after "
    "towards toward like as than to and or who whom whose which that if when while because"
)
_PRONOUNS = _set("we they he she it everyone everybody anyone anybody someone people one society them him us")
_SUBJECTS = _set("i you he she it they we")
_PERSONAL = _set("i i'm i've my me you you're your mine yours this that he she they we're")
_POINTING = _set("it it's they them he she him her this that these those one")
_ADVERBS = _set("always still also only ever even really actually simply just automatically generally")
_DEGREES = _ADVERBS | _set("very too so more less as morally ethically inherently fundamentally truly completely")

# Base forms that are hardly ever nouns, and those that often are.
_VERBS = _set(
    "be have do get give take make allow let pay provide receive keep become remain teach learn stay go come speak "
    "say tell think believe accept reject abolish legalise legalize criminalise criminalize decriminalise "
    "decriminalize prohibit forbid permit restrict regulate intervene interfere protect defend prevent reduce "
    "increase lower encourage discourage promote impose enforce introduce implement adopt eat drink kill die live "
    "marry divorce choose decide apologise apologize carry own wear buy sell send bring put leave join recognise "
    "recognize respect celebrate follow obey serve consider continue begin start know see treat offer require "
    "prioritise prioritize participate compete expect deserve ensure deport try handle interview discriminate lie "
    "steal pray welcome open close exist share invest spend contribute replace remove eliminate eradicate destroy "
    "tolerate embrace ignore forgive punish vaccinate"
)
_VERBS_OR_NOUNS = _set(
    "ban fund tax control use vote force stop support work change cause help need censor monitor judge limit raise "
    "care subsidise subsidize arm fight attack study play run lead rule hold cut matter end feel count love hate "
    "boycott"
)
# After one of these a word that may be a noun is the verb.
_COLLECTIVE = _set("government state country people women men children police society parliament congress everyone")

# What people put before and after a question: without it the rules see its own first word and its last.
_LEAD = re.compile(
    r"^(?:(?:hi|hello|hey|so|well|ok|okay|honestly|please|and|but|then)(?: there)?[,!. ]+"
    r"|tell me,? (?=should|is|are|do|does)"
    r"|in your (?:\w+ )?(?:opinion|view),? |do you know if |i(?:'d| would) like to know (?:if|whether) )+",
    re.I,
)
_TAIL = re.compile(
    r"(?:,? (?:in your (?:\w+ )?(?:opinion|view)|do you think|please|and why|why or why not|or not|yes or no|why))+$",
    re.I,
)
_EITHER_OR = re.compile(
    r"\b(right|good|moral|ethical|fair|acceptable|justified|ok|okay) or "
    r"(?:wrong|bad|immoral|unethical|unfair|unacceptable|unjustified|not)\b",
    re.I,
)
_THINK = re.compile(
    r"(?:do|would) you (?:\w+ly )?(?:think|believe|feel|agree|say)(?: with the \w+)?(?P<that> that)? (?P<rest>.+)", re.I
)
_FOR = re.compile(
    r"(?:do you (?:\w+ly )?(?:support|favou?r|approve of|agree with)|are you (?:for|pro|in favou?r of)|"
    r"(?:what|how) do you (?:think|feel) (?:about|of|on|regarding)|"
    r"(?:what(?:'s| is| are) )?your (?:\w+ )?(?:opinions?|views?|thoughts?|stance|position|take|feelings?) "
    r"(?:about|on|of|regarding|towards?)|thoughts (?:about|on)|"
    r"i (?:\w+ly )?(?:support|favou?r|agree with)|i(?: am|'m) (?:for|in favou?r of)) (?P<what>.+)",
    re.I,
)
_AGAINST = re.compile(
    r"(?:do you (?:\w+ly )?(?:oppose|disagree with|disapprove of)|are you (?:against|anti|opposed to)|"
    r"i (?:\w+ly )?(?:oppose|disagree with)|i(?: am|'m) (?:against|opposed to)) (?P<what>.+)",
    re.I,
)
_HELD = re.compile(
    r"(?:i (?:\w+ly )?(?P<not>do not |don't )?(?:think|believe|feel)(?: that)?|in my (?:\w+ )?(?:opinion|view),?|"
    r"my (?:opinion|view) is that) (?P<rest>.+)",
    re.I,
)
_IMPERSONAL = re.compile(r"it(?:'s| is| was| would| should| could| can)\b.* (?:to|that|for|when|if)\b", re.I)
_WORDS = (2, 40)
_CLAUSE_WORDS = 3


def read(prompt: str) -> Reading:
    """Whether a prompt holds an opinion or asks for one, and the one proposition that it is about.

    It is about values where it asks what one thinks, says what its writer thinks, or has a word of duty or of worth
    (``MARKERS``). The proposition comes from its only sentence that has one.

    >>> read("Should the death penalty be abolished?").claim
    Claim(proposition='The death penalty should be abolished.', phrasing='should', polarity=1)
    >>> read("Are you against gun control?").claim
    Claim(proposition='Gun control should be supported.', phrasing='reversed', polarity=-1)
    """
    # The rules know one way to write these.
    text = re.sub(r"\b([Ii]t)'s\b", r"\1 is", " ".join(prompt.replace("’", "'").split()))
    opinion = bool(_ASKS_OPINION.search(text) or _is_marked(text))
    parts = [part for part in re.split(r"(?<=[.!?])\s+", text) if part]
    claims = [
        claim
        for part in parts
        if (claim := _claim(part)) is not None and _stands_alone(claim.proposition, len(parts) == 1)
    ]
    return Reading(form_of(text), opinion, claims[0] if opinion and len(claims) == 1 else None)


def form_of(text: str) -> Form:
    """A question that yes or no can answer, another question, a statement, or a request, by first word and mark."""
    bare = _LEAD.sub("", text)
    first = next(iter(_tokens(bare)), "")
    if first in _YES_NO:
        return "yes_no"
    if first in _OPEN or text.rstrip().endswith("?"):
        return "open"
    return "request" if first in _REQUESTS else "statement"


def declared(text: str) -> str:
    """A clause as a sentence: capital, full stop."""
    return sentence(text.rstrip(".!?,;: "))


def is_sane(text: str) -> bool:
    """One line of 2 to 40 words."""
    return "\n" not in text and _WORDS[0] <= len(text.split()) <= _WORDS[1]


def _tokens(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.casefold())


def _is_marked(text: str) -> bool:
    return not MARKERS.isdisjoint(_tokens(text)) or bool(_NEEDED.search(text))


def _is_negated(text: str) -> bool:
    return any(token in _NEGATIONS or token.endswith("n't") for token in _tokens(text))


def _stands_alone(proposition: str, only_sentence: bool) -> bool:
    """Whether it can be understood without its writer and without the sentences around it."""
    words = _tokens(proposition)
    if not {"i", "i'm", "me", "my", "mine", "you", "your"}.isdisjoint(words):
        return False
    if not only_sentence and (words[0] in _POINTING or words[-1] in _POINTING):
        return False
    return words[0] not in ("it", "it's") or bool(_IMPERSONAL.match(proposition))


def _claim(part: str) -> Claim | None:
    bare = _EITHER_OR.sub(r"\1", _TAIL.sub("", _LEAD.sub("", part).rstrip(".!? ")))
    form = form_of(bare + ("?" if part.endswith("?") else ""))
    # "A or B" makes two claims, or asks to choose between them: neither is the one proposition.
    if form == "request" or " or " in bare.casefold():
        return None
    claim = _statement(bare) if form == "statement" else _question(bare)
    return claim if claim is not None and is_sane(claim.proposition) else None


def _question(text: str) -> Claim | None:
    attitude = _attitude(text, "direct")
    if attitude is not None:
        return attitude
    thought = _THINK.fullmatch(text)
    if thought:
        clause = thought["rest"]
        return Claim(declared(clause), "direct", 1) if thought["that"] or _is_clause(clause) else None
    words = text.split()
    auxiliary = words[0].casefold() if words else ""
    # Yes to a negated question may mean either.
    if auxiliary not in _AUXILIARIES or len(words) < 3 or _is_negated(text) or not _is_marked(text):
        return None
    clause = _declarative(auxiliary, words[1:])
    if clause is None:
        return None
    return Claim(declared(clause), "should" if auxiliary == "should" else "direct", 1)


def _statement(text: str) -> Claim | None:
    attitude = _attitude(text, "statement")
    if attitude is not None:
        return attitude
    held = _HELD.fullmatch(text)
    clause = held["rest"] if held else text
    if not _is_clause(clause) or not (held or _is_marked(clause)):
        return None
    reversed_ = bool(held and held["not"])
    return Claim(declared(clause), "reversed" if reversed_ else "statement", -1 if reversed_ else 1)


def _attitude(text: str, phrasing: str) -> Claim | None:
    """For or against a thing: the proposition is that it should be supported."""
    for pattern, own_phrasing, polarity in ((_FOR, phrasing, 1), (_AGAINST, "reversed", -1)):
        match = pattern.fullmatch(text)
        if match:
            thing = re.sub(r"^the (?:idea|concept|topic|subject|issue) of ", "", match["what"], flags=re.I)
            words = _tokens(thing)
            if 1 <= len(words) <= 8 and not _is_negated(thing) and words[0] not in _PERSONAL | _PREPOSITIONS | _OPEN:
                return Claim(declared(f"{thing} should be supported"), own_phrasing, polarity)
            return None
    return None


def _is_clause(text: str) -> bool:
    words = _tokens(text)
    return (
        len(words) >= _CLAUSE_WORDS
        and words[0] not in _PERSONAL | _PREPOSITIONS | _OPEN
        and not _FINITE.isdisjoint(words[1:])
    )


def _declarative(auxiliary: str, words: Sequence[str]) -> str | None:
    """A yes-no question without its auxiliary as a statement, None where the subject's end cannot be told."""
    lower = [re.sub(r"[^\w'-]", "", word.casefold()) for word in words]
    if lower[0] in _PERSONAL:
        return None
    if auxiliary in ("is", "was") and lower[:3] == ["it", "true", "that"]:
        return " ".join(words[3:])
    alone = lower[0] in _PRONOUNS and lower[1] not in _PREPOSITIONS and not lower[1].endswith("ing")
    if alone or lower[0] == "there":
        end: int | None = 1
    else:
        copula = auxiliary in ("is", "are", "was", "were")
        end = _first(lower, _begins_predicate if copula else _begins_action)
    if end is None or words[end - 1].endswith((",", ";", ":")) or (end > 1 and not _SUBJECTS.isdisjoint(lower[:end])):
        return None
    return " ".join([*words[:end], auxiliary, *words[end:]])


def _first(words: Sequence[str], begins: Callable[[Sequence[str], int], bool]) -> int | None:
    return next((at for at in range(1, len(words)) if begins(words, at)), None)


def _begins_action(words: Sequence[str], at: int) -> bool:
    word, before = words[at], words[at - 1]
    if before in _DETERMINERS | _PREPOSITIONS | _FINITE or _is_negated(before):
        return False
    if word in _VERBS | _ADVERBS:
        return True
    if word not in _VERBS_OR_NOUNS:
        return False
    # A noun as well as a verb: it counts as the verb only where its neighbours leave no other reading.
    after = words[at + 1] if at + 1 < len(words) else ""
    plural = before.endswith("s") and not before.endswith("ss")
    return plural or before in _COLLECTIVE or after in _DETERMINERS | _PREPOSITIONS | _PRONOUNS


def _begins_predicate(words: Sequence[str], at: int) -> bool:
    word, before = words[at], words[at - 1]
    if before in _DETERMINERS | _PREPOSITIONS | _FINITE:
        return False
    if word in _DETERMINERS:
        return not before.endswith("ing")
    return word in EVALUATIVE | _DEGREES
