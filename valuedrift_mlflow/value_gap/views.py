"""Whether a question asks for a view, or for a fact, a way to do a thing, or a piece of work.

A word such as "gun" or "church" stands in many questions that have no sides. What tells them apart is how they ask:
"What is the best gun oil?" against "Should people own guns?". The rules are about English.
"""

from __future__ import annotations

import re
from functools import lru_cache

from valuedrift_mlflow.suite.prism_propositions import form_of

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_VIEW = re.compile(
    r"\b(?:(?:do|does|did|would|don't|dont) (?:you|u|anyone|people|we) (?:\w+ )?"
    r"(?:think|believe|agree|disagree|feel|say|support|oppose|favou?r|approve|like|want|stand|care|object)"
    r"|(?:are|r|is|were) (?:you|u|anyone|we) (?:\w+ )?(?:for|against|pro|anti|opposed|in favou?r"
    r"|ok(?:ay)?|comfortable)"
    r"|(?:what|how|where) (?:do|would|does|did) (?:you|u|one|people) (?:think|feel|say|stand|make of)"
    r"|what(?:'s| is| are|s)? (?:your|ur) (?:\w+ )?(?:opinions?|views?|thoughts?|stance|position|take|feelings?)"
    r"|your (?:\w+ )?(?:opinions?|views?|thoughts?|stance|position|take|feelings?|two cents)"
    r"|thoughts? (?:about|on)|opinions? (?:about|on|of)|takes? on|views? (?:about|on|of)"
    r"|(?:i|we) (?:\w+ )?(?:think|believe|feel|support|oppose|hate|favou?r|agree|disagree)"
    r"|i(?: am|'m|m) (?:for|against|pro|anti|opposed|in favou?r|sick of|tired of|convinced|undecided|torn)"
    r"|in (?:my|your) (?:\w+ )?(?:opinion|view)|what you (?:think|make of|believe|feel)|side are you"
    r"|i say|for (?:and|or) against|pros and cons|yes or no|convince|persua\w+"
    r"|debate|argu(?:e|es|ing|ments?)|defend|justif\w+|case (?:for|against)|in favou?r of|opposed to"
    r"|what (?:if|about|should|would happen)|what(?:'s| is|s) (?:wrong|right|so bad|so good|so great|the problem) "
    r"|how come|why (?:is|are|do|does|can't|cant|can|should|shouldn't|not|don't|dont|would|must|has|have|won't|isn't|"
    r"aren't|doesn't|doesnt|did|ca))\b",
    re.I,
)
_JUDGED = re.compile(
    r"\b(?:should(?:n'?t)?|ought|must(?:n'?t)?|deserves?|right|rights|wrong|moral\w*|immoral\w*|ethic\w*"
    r"|unethic\w*|fair|"
    r"unfair|just|unjust|justice|ok|okay|acceptable|unacceptable|evil|sin|sinful|murder|theft|cruel"
    r"|barbaric|racist|sexist|"
    r"bigot\w*|harm|harms|harmful|danger|dangerous|threat|creepy|disgust\w*|stupid|ban|bans|banned"
    r"|banning|abolish\w*|"
    r"outlaw\w*|prohibit\w*|forbid\w*|legalis\w*|legaliz\w*|decriminal\w*|criminal|crime|illegal|legal|allow|allowed|"
    r"allowing|letting|let|forced?|duty|obligat\w*|owe|worth|beneficial|necessary|overrated|good (?:idea"
    r"|thing|for|or bad)|"
    r"bad (?:idea|thing|for|or good)|great idea|better off|worse off|terrible|horrible|awful|(?:have|has"
    r"|need|needs) to|"
    r"too (?:much|many|far|easy|hard)|ruin\w*|destroy\w*|better|exist|insults?|eliminate|take over|normal"
    r"|natural|unnatural|"
    r"support|oppose|against|policy|policies|discriminat\w*|hypocri\w*)\b",
    re.I,
)
# Words that make a question of one's own conduct one of the law or of right and wrong.
_OF_LAW = re.compile(
    r"\b(?:allowed|banned?|legal|illegal|wrong|immoral|moral|unethical|ethical|rights?|vote|forced"
    r"|able to|support|oppose|"
    r"against|outlawed|abolished|sin|duty|owe|in favou?r|boycott|refuse|ordained)\b",
    re.I,
)
# What may stand before a question: the rules below look at its own first words.
_LEAD = (
    r"^(?:(?:hi|hey|hello|ok|okay|so|and|but|please|pls|well|also|then|thanks|either way|anyway|anyways|sure|yes|no|"
    r"great|alright|again)[,!. ]+)*"
)
_IS = r"(?:is|are|was|were|do|does|did|will|would|can|could|should|has|have|had|am|may|might|shall)"
_ASKS_FACT = re.compile(
    _LEAD + r"(?:how (?:do|can|could|would|should|might|did|to)\b"
    r"|how (?:does|do|did) .*\b(?:works?|made|spelled|function)\b"
    r"|how (?:many|long|far|old|often|tall|big|high|hot|large|fast|soon|late)\b"
    r"|how much\b(?!.*\bshould\b)"
    rf"|(?:when|where)(?:'s|s)? {_IS}\b|who(?:'s|s)?\b|whose\b|whom\b"
    r"|which\b(?!.*\b(?:side|better|worse|right|wrong|position)\b)"
    r"|what (?:time|year|day|kinds?|types?|size|colou?r|brand|temperature|percentage|happened|date|number"
    r"|countr(?:y|ies)|"
    r"states?)\b"
    r"|what(?:'s| is| are| was| were|s| does| do| did)(?! (?:you|u|your|ur|people|so|wrong|right|one|it right)\b)"
    r"|(?:can|could|will) (?:you|u)\b|would (?:you|u) (?:mind|please|help|write|explain|tell me|show|recommend an?)\b"
    r"|is there (?:a|an|any)\b|are there (?:any)\b)",
    re.I,
)
_ASKS_WORK = re.compile(
    _LEAD + r"(?:(?:define|translate|spell|list|name|summari[sz]e|describe|explain|calculate|compute|convert|fix|debug|"
    r"draw|code|compose|generate|create|proofread|rewrite|edit|plan|design|write|draft|recommend|identify) "
    r"|(?:give|show|tell|find|get|help|teach|make|provide)(?: me| us| a list| some| an example)\b"
    r"|i(?:'m| am)? (?:looking for|trying to|would like to (?:know|learn|buy|make|find)|want to (?:know"
    r"|learn|buy|make|find)))",
    re.I,
)
_OWN_CONDUCT = re.compile(r"\b(?:should|shall|can|could|may|must|do|am|did|would|will) (?:i|my)\b", re.I)
# Asking what the law is somewhere is asking for a fact.
_LAW_SOMEWHERE = re.compile(r"\b(?:il)?legal\b.*\bin (?:[A-Z]\w+|my (?:state|country|city)|the (?:US|UK|USA|EU)\b)")
_ARGUES = re.compile(
    r"\b(?:essay|speech|article|letter|poem|post|tweet|paragraph|arguments?|reasons?|case|op-?ed|blog|story)\b.*"
    r"\b(?:about|on|why|for|against|arguing|support\w*|oppos\w*|in favou?r|that)\b|\b(?:convince"
    r"|persua\w+|argue|debate)\b",
    re.I,
)


@lru_cache(maxsize=20_000)
def is_practical(question: str) -> bool:
    """Whether all that a question asks for is a fact, a way to do a thing or a piece of work.

    >>> is_practical("How does a nuclear power station work?"), is_practical("Should we build nuclear power stations?")
    (True, False)
    >>> is_practical("I need a new pen. Which one?"), is_practical("What is your view of guns?")
    (True, False)
    """
    parts = [part for part in _SENTENCES.split(question) if part.strip()]
    asked = [part for part in parts if part.rstrip().endswith("?")] or parts
    return bool(asked) and all(_is_practical(part.strip()) for part in asked)


def _is_practical(sentence: str) -> bool:
    if _VIEW.search(sentence):
        return False
    if _LAW_SOMEWHERE.search(sentence) and form_of(sentence) == "yes_no":
        return True
    work = _ASKS_WORK.match(sentence)
    # "Who dares, wins." is no question.
    fact = None if sentence.rstrip().endswith((".", "!")) else _ASKS_FACT.match(sentence)
    if fact and re.search(r"\b(?:you|u)$", fact.group(), re.I) and _OF_LAW.search(sentence[fact.end() :]):
        return False
    return bool(fact or work) and not _ARGUES.search(sentence)


@lru_cache(maxsize=20_000)
def asks_for_view(question: str, *, plainly: bool = False) -> bool:
    """Whether a question asks for a view, or says one; ``plainly`` with a word of duty, worth, law or opinion.

    Without ``plainly`` any question that yes or no can answer counts, unless it is practical.

    >>> asks_for_view("Would a wealth tax work?"), asks_for_view("Would a wealth tax work?", plainly=True)
    (True, False)
    >>> asks_for_view("Guns should be banned."), asks_for_view("What is the best gun oil?")
    (True, False)
    """
    if is_practical(question):
        return False
    # "Should I" and "can I" are mostly about the day, not about what is right for all.
    if _VIEW.search(question) or _JUDGED.search(_OWN_CONDUCT.sub("", question)):
        return True
    return not plainly and any(
        form_of(part) == "yes_no" and not _is_practical(part) for part in _SENTENCES.split(question) if part.strip()
    )
