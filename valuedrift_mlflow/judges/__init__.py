"""Judges turn answers into verdicts: a stance with probabilities, a refusal, or unscored."""

from __future__ import annotations

from collections import Counter

from valuedrift_mlflow.inputs.errors import InputError, collecting, problem
from valuedrift_mlflow.inputs.uris import split_options
from valuedrift_mlflow.judges import own
from valuedrift_mlflow.judges.auto import AUTO, resolved
from valuedrift_mlflow.judges.judge import CostlyJudge, Judge

ALLOWED = (
    "auto, lexical, hf:FOLDER_OR_HUB_ID, hf:models:/NAME@ALIAS, openai:/MODEL, module:Class, several of them separated "
    "by commas, or likelihood alone"
)
_WITH_MODELS = ("hf:", "openai:")  # no modules of a user, although they read like one


def load(uri: str = AUTO, *, embedded: bool = False, evaluated: str = "") -> Judge:
    """The judge that a URI names; weights are loaded when the first answer is judged.

    What ``auto`` stands for depends on whose answers are judged: see ``auto.resolved``.

    Raises:
        InputError: the judge is not known, or an option of it is out of range.
    """
    uri, _ = resolved(uri, embedded=embedded, evaluated=evaluated)
    names = [name.strip() for name in uri.split(",")]
    if names == ["likelihood"]:
        # Each judge is imported where it is asked for: most need torch or a client, the offline one neither.
        from valuedrift_mlflow.judges.likelihood import LikelihoodJudge

        return LikelihoodJudge()
    with collecting() as problems:
        members = [judge for name in names if (judge := problems.attempt(_single, name)) is not None]
        if len(set(names)) < len(names):
            problems.add(problem("judge", uri, "every member of a panel once"))
        # Names of ours are their URIs, and differ. A class of a user
        # gives its own, under which opinions are told apart.
        elif any(isinstance(member, own.OwnJudge) for member in members):
            named = Counter(member.name for member in members)
            problems.add(
                *(problem("judge", name, "a name of its own for every member") for name in named if named[name] > 1)
            )
    if len(members) == 1:
        return members[0]
    from valuedrift_mlflow.judges.panel import Panel

    return Panel(members)


def _single(uri: str) -> Judge:
    name, options = split_options(uri)
    if name == "likelihood":
        raise InputError(problem("judge", uri, "likelihood alone", "it asks the model itself and reads no responses"))
    if name == "lexical" and not options:
        from valuedrift_mlflow.judges.lexical.judge import LexicalJudge

        return LexicalJudge()
    if name and name not in ("lexical", "likelihood") and not name.startswith(_WITH_MODELS):
        return own.load_own(name, options, ALLOWED)
    from valuedrift_mlflow.judges.cache import CachedJudge

    # Only what takes seconds or money is kept. A user's judge is not: nobody knows whether its version tells all of it.
    return CachedJudge(_costly(name, options))


def _costly(name: str, options: dict[str, str]) -> CostlyJudge:
    if name.startswith("hf:") and name != "hf:":
        from valuedrift_mlflow.judges import hf

        return hf.from_options(name, options)
    if name.startswith("openai:/") and name.strip("/") != "openai:":
        from valuedrift_mlflow.judges import chat

        return chat.from_options(name, options)
    raise InputError(problem("judge", name, ALLOWED))
