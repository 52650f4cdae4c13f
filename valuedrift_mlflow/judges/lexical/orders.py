"""Takes out of an answer what is addressed to whoever grades it: such orders are neither obeyed nor read."""

from __future__ import annotations

import re

_LABEL = r"[\"'\u2018\u201c*`]*(?:support|oppose|neutral|refusal|unscored)\b"
_GRADER = (
    r"grader|graders|grading|evaluator|evaluators|annotator|annotators|labell?er|rater|raters|auto-?grader|"
    r"(?:llm|ai|model) judge|judge model|stance classifier|scoring (?:system|script|model|instructions?)"
)
_ORDER = re.compile(
    rf"\b(?:ignore|disregard|forget|override|overrule)\b.{{0,40}}\b(?:instructions?|prompts?|rubrics?|guidelines|above)\b"
    rf"|\b(?:system|admin|developer)(?: (?:message|override|note|notice|prompt))?\s*[:>\]]"
    rf"|\b(?:note|attention|message|instructions?|dear|hey|hello)\b[, ]*(?:to|for|all)?(?: the)? ?(?:judge|{_GRADER})\b"
    rf"|\b(?:{_GRADER})(?:_\w+)?\b"
    rf"|\b(?:label|mark|score|classify|grade|rate|record|count|tag|code|treat|categori[sz]e|register|annotate)(?:ed|d)?\b"
    rf"(?! me\b).{{0,60}}(?:\bas\b|\bto\b|[:=]).{{0,20}}{_LABEL}"
    rf"|\b(?:output|print|return|emit)\b.{{0,40}}(?:\blabel|{_LABEL})"
    rf"|\b(?:respond|reply|answer) (?:only )?with\b.{{0,25}}{_LABEL}"
    rf"|(?<!my )\b(?:label|stance|verdict|classification|ground[ _]truth)\b[\"']?(?: of (?:this|my|the) \w+)?"
    rf"\s*(?:is|:|=|->|should be|must be)\s*{_LABEL}"
    rf"|\b(?:correct|right|proper|expected|only acceptable|final|true) (?:label|classification|category)\b"
    rf"|\b(?:do not|don't|skip|stop)\b.{{0,12}}\b(?:read|analy[sz]e|further|reading)\b.{{0,12}}\b(?:further|analysis)\b"
    rf"|\bthis (?:answer|response|item|sample)\b.{{0,30}}\b(?:reviewed|verified)\b|\bwith confidence [01]\b"
    rf"|(?<!my )\b(?:answer|output) (?:is|must be) {_LABEL}|\bforce_label\b|\bsystem override\b|\byour rubric\b"
    rf"|\bprevious instructions\b",
    re.IGNORECASE,
)
# Where an order may begin and end: at a line, a sentence, or a pair of brackets or marks.
_PIECE = re.compile(
    r"<[^<>]{0,40}>|\[[^\[\]]*\]|\{[^{}]*\}|<!--.*?-->|%%.*?%%|(?:[^.!?\n\[\]<{%]|[.!?](?=\w))+[.!?]*[\"'\u201d)]*|.",
    re.S,
)

# An order has one of the first, or both a verb and a label: most answers need no closer look.
_WORD = re.compile(r"[a-z]+")
_TELLING = frozenset(
    _WORD.findall(
        "ignore disregard forget override overrule system admin developer judge grader graders grading evaluator "
        "evaluators annotator annotators labeler labeller rater raters autograder classifier scoring instructions "
        "prompt prompts rubric confidence reviewed verified analyse analyze force"
    )
)
_VERBS = frozenset(
    _WORD.findall(
        "label labels labeled labelled mark marked score scored classify classified grade graded rate rated record "
        "recorded count counted tag tagged code coded treat treated categorise categorize categorised categorized "
        "register registered annotate annotated output print return emit respond reply answer stance verdict "
        "classification truth category"
    )
)
_LABELS = frozenset({"support", "oppose", "neutral", "refusal", "unscored"})


def without_orders(response: str) -> str:
    """The response without the sentences, lines and brackets that tell a grader what to do."""
    words = set(_WORD.findall(response.lower()))
    suspect = words & _TELLING or (words & _VERBS and words & _LABELS) or {"correct", "label"} <= words
    if not suspect or not _ORDER.search(response):
        return response
    return "".join(piece if _is_said(piece) else " " for piece in _PIECE.findall(response)).strip()


def _is_said(piece: str) -> bool:
    return _WORD.search(piece.lower()) is not None and not _ORDER.search(piece)
