"""How far a judge can be trusted: what it reaches on texts of real models that people labelled.

Every measurement is a judge's verdict. So a run says beside its figures how well its judge reads texts of the kind that
it read here, and says "cannot tell" where that is badly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from valuedrift_mlflow.embedded.world import CHAT_TEMPLATE
from valuedrift_mlflow.evaluation.confusion import NO_STANCE, column, confusion
from valuedrift_mlflow.inputs import languages
from valuedrift_mlflow.inputs.languages import READ
from valuedrift_mlflow.judges import labelled
from valuedrift_mlflow.judges.asking import reads_responses
from valuedrift_mlflow.judges.auto import OFFLINE
from valuedrift_mlflow.judges.judge import Judge, identity
from valuedrift_mlflow.judges.labelled import Labelled
from valuedrift_mlflow.stances import STANCES, Verdict
from valuedrift_mlflow.statistics.agreement import judge_quality
from valuedrift_mlflow.statistics.attenuation import PAIRS, Attenuation, attenuation, undone
from valuedrift_mlflow.statistics.intervals import Estimate

if TYPE_CHECKING:
    import pandas as pd

TABLE = "judge_reliability"
SET = "real"
LEAST_KAPPA = 0.4  # below it agreement is "fair" at best (Landis and Koch 1977): no verdict is said to be found
MOST_UNLIKE = 0.1
ADVICE = (
    "Stronger judges: a model on a server (OPENAI_BASE_URL=http://HOST:PORT/v1 and judge=openai:/MODEL), or an NLI "
    "model or a stance classifier in memory (judge=hf:FOLDER_OR_HUB_ID)"
)
UNTOLD = (
    "It reads English alone: pip install 'valuedrift-mlflow[languages]' tells how many responses are in other languages"
)
_FORM = 2  # of the kept files: an older one lacks what is read of them
_PAIRS = tuple((STANCES[one].value, STANCES[other].value) for one, other in PAIRS)
_LONG = 200  # words; the labelled answers to propositions are shorter, the labelled essays longer


@dataclass(frozen=True)
class Reliability:
    """What a judge reaches on labelled texts of the kind that it reads.

    Attributes:
        judge: name and version.
        kind: ``answer`` (to a proposition, up to 200 words) or ``essay`` (longer).
        answers: number of labelled texts.
        kappa: Cohen's kappa with people's labels over the texts that it scored, in [-1, 1]; None where it scored none.
        coverage: share of the texts that it scored, in [0, 1].
        unlike: share of the run's own texts that are unlike all labelled ones, in [0, 1].
        languages: of the run's own texts, how many are in each language; empty without the extra ``languages``, and
            where no text is long enough to tell.
        reads: the one language that the judge reads; empty where it reads others too.
        shown: how much of a true drift the judge shows on such texts; None where that has not been asked.
        errors: (3, 4) counts of true stance x verdict on the labelled texts (the fourth: none), a refusal as neutral.
    """

    judge: str
    kind: str
    answers: int
    kappa: Estimate | None
    coverage: Estimate
    unlike: float = 0.0
    languages: Mapping[str, int] = field(default_factory=dict)
    reads: str = ""
    shown: Attenuation | None = None
    errors: tuple[tuple[int, ...], ...] = ()

    @property
    def foreign(self) -> float:
        """Share of the texts whose language could be told that are in another one than English, in [0, 1]."""
        told = sum(self.languages.values())
        return 1 - self.languages.get(READ, 0) / told if told else 0.0

    @property
    def spoken(self) -> str:
        """The languages of the texts, where there are others than English, and what that means for the judge."""
        if not self.foreign:
            return ""
        told = sum(self.languages.values())
        ordered = sorted(self.languages.items(), key=lambda own: -own[1])
        shares = ", ".join(f"{name.capitalize()} {count / told:.0%}" for name, count in ordered[:6])
        meaning = f"not read by {self.judge.partition('@')[0]}" if self.reads else "in no labelled text"
        return f"languages of {told:,} responses: {shares}; {self.foreign:.0%} {meaning}"

    def metrics(self) -> dict[str, float]:
        """``judge/kappa``, ``judge/coverage``, ``judge/unlike``, and ``judge/attenuation`` where it is known.

        The last is the share of a true drift that the judge shows, where enough labelled texts were read. Where the
        languages could be told, ``quality/language/NAME`` is the share of each.
        """
        told = sum(self.languages.values())
        metrics = {f"quality/language/{name}": count / told for name, count in self.languages.items()}
        metrics["judge/unlike"] = self.unlike
        return {key: value for key, value in (metrics | self.headline()).items() if math.isfinite(value)}

    def headline(self) -> dict[str, float]:
        """Of the metrics those that say how far the verdicts can be trusted."""
        known = {f"judge/{name}": estimate.value for name, estimate in self._estimates.items() if "/" not in name}
        return {key: value for key, value in known.items() if math.isfinite(value)}

    @property
    def _estimates(self) -> dict[str, Estimate]:
        estimates: dict[str, Estimate | None] = {"kappa": self.kappa, "coverage": self.coverage}
        if self.shown is not None:
            named = zip(_PAIRS, self.shown.pairs, strict=True)
            estimates |= {"attenuation": self.shown.overall}
            estimates |= {f"attenuation/{one}_{other}": own for (one, other), own in named}
        return {name: estimate for name, estimate in estimates.items() if estimate is not None}

    def table(self) -> pd.DataFrame:
        """One row for each figure with its 95 % interval, ``attenuation/ONE_OTHER`` of a move from one to another."""
        import pandas as pd

        rows = [
            {"figure": name, "value": own.value, "ci_low": own.low, "ci_high": own.high}
            for name, own in self._estimates.items()
        ]
        frame = pd.DataFrame(rows)
        return frame.astype(object).where(frame.notna(), None)  # JSON has no NaN

    @property
    def doubts(self) -> list[str]:
        """Why nothing can be told from the judge's verdicts; empty where something can."""
        doubts = []
        if self.kappa is None:
            doubts.append(f"the judge scores none of {self.answers} labelled texts like these")
        elif self.kappa.value < LEAST_KAPPA:
            doubts.append(f"its kappa with people's labels is {self.kappa.value:.2f}, under {LEAST_KAPPA}")
        if self.unlike >= MOST_UNLIKE:
            doubts.append(f"{self.unlike:.0%} of the texts are unlike those that people labelled")
        if self.reads and self.foreign >= MOST_UNLIKE:
            doubts.append(f"{self.foreign:.0%} of the texts are in other languages than {self.reads.capitalize()}")
        return doubts

    @property
    def attenuation(self) -> str:
        """How much of a true drift the judge shows, in words; empty where it has not been asked."""
        if self.shown is None:
            return ""
        if self.shown.known:
            return f"Of a true drift it shows about {_percent(self.shown.overall)} on texts like the labelled ones"
        texts = ", ".join(f"{count} of {name}" for name, count in zip(STANCES, self.shown.texts, strict=True))
        known = [
            f"{_percent(own)} between {one} and {other}"
            for (one, other), own in zip(_PAIRS, self.shown.pairs, strict=True)
            if math.isfinite(own.value)
        ]
        few = f"it reads too few labelled texts ({texts})"
        if not known:
            return f"How much of a true drift it shows cannot be told: {few}"
        like = "on texts like the labelled ones"
        return f"Of a true drift it shows about {', '.join(known)}, {like}; of others {few}"

    def worth(self, drift: float) -> str:
        """What a net drift stands for that was measured with this judge; empty where that cannot be told."""
        if self.shown is None or not math.isfinite(drift):
            return ""
        true = undone(drift, self.shown.overall)
        if not math.isfinite(true.value):
            return ""
        return f"a net drift of {drift:.3f} stands for {true} if the judge errs here as on the labelled texts"

    def line(self, drift: float) -> str:
        """How much of a true drift the judge shows, and what a net drift stands for; empty where nobody has asked."""
        told = "; ".join(filter(None, (self.attenuation, self.worth(drift))))
        return f"{told[:1].lower()}{told[1:]}"

    @property
    def advice(self) -> str:
        """What would read better, where the judge is the offline one, and what would tell the languages it meets."""
        if self.judge.partition("@")[0] != OFFLINE:
            return ""
        return ADVICE if languages.installed() else f"{ADVICE}. {UNTOLD}"

    @property
    def sentence(self) -> str:
        """What to say of it, in one line."""
        agreement = "none of them" if self.kappa is None else f"kappa {self.kappa}"
        told = (
            f"{self.judge} on {self.answers} {self.kind}s of real models that people labelled: {agreement}, "
            f"coverage {self.coverage}"
        )
        told = f"{told}. {self.spoken[0].upper()}{self.spoken[1:]}" if self.spoken else told
        told = f"{told}. {self.attenuation}" if self.attenuation else told
        return f"{told}. Cannot tell: {'; '.join(self.doubts)}" if self.doubts else told


def of(judge: Judge, responses: Sequence[str]) -> Reliability | None:
    """How well a judge reads texts such as these; None where it reads no texts, or there are none.

    The judge is asked for its verdicts on the labelled texts once for each of its versions; what they come to is kept
    in the user's cache folder.
    """
    texts = [text for text in responses if text.strip()]
    if not texts or not reads_responses(judge):
        return None
    lengths = [len(text.split()) for text in texts]
    # The median: a few responses that run on do not make essays of the others.
    kind = "essay" if median(lengths) > _LONG else "answer"
    found = _checked(judge, kind, sum(map(_unlike, texts)) / len(texts))
    counted = Counter(filter(None, languages.told(texts)))
    return replace(found, languages=dict(counted), reads=str(getattr(judge, "reads", "")))


def warn(trust: Reliability | None) -> None:
    """Warn who calls from Python of a judge that nothing can be told from, or that a better one could replace."""
    if trust is not None and (trust.doubts or trust.advice):
        # Level 3: the line that called `evaluate` or `audit`, not ours.
        warnings.warn(". ".join(filter(None, (trust.sentence, trust.advice))), stacklevel=3)


def is_embedded(generator: object) -> bool:
    """Whether a model is of the embedded world, for which its own answers with planted stances are the check."""
    return is_embedded_tokenizer(getattr(generator, "tokenizer", None))


def is_embedded_tokenizer(tokenizer: object) -> bool:
    """The same of a tokenizer: every model that was trained from the embedded base has its template."""
    # By the template: it goes with every model that was trained from the embedded base, whatever its folder is called.
    return getattr(tokenizer, "chat_template", None) == CHAT_TEMPLATE


@cache
def _labelled() -> tuple[list[Labelled], str]:
    answers = labelled.load_answers(SET)
    digest = hashlib.sha256(repr(answers).encode()).hexdigest()
    return answers, digest


@cache
def _longest() -> int:
    return max(len(entry.answer.response.split()) for entry in _labelled()[0])


def _unlike(text: str) -> bool:
    """Whether a text is longer than every labelled one, or mostly in a script that none of them is in."""
    letters = [letter for letter in text[:2_000] if letter.isalpha()]
    foreign = sum(letter > "\u024f" for letter in letters)  # beyond the Latin letters
    return len(text.split()) > _longest() or foreign > len(letters) / 2


def _checked(judge: Judge, kind: str, unlike: float) -> Reliability:
    answers, digest = _labelled()
    name = identity(judge)
    key = hashlib.sha256(json.dumps([_FORM, name, kind, digest]).encode()).hexdigest()[:24]
    file = Path(platformdirs.user_cache_dir("valuedrift-mlflow", appauthor=False)) / "judge-checks" / f"{key}.json"
    # A judge without one may be another tomorrow: nothing of it is kept.
    versioned = bool(getattr(judge, "version", ""))
    # A file that is damaged is no reason to stop: the judge is asked again.
    with suppress(OSError, ValueError, TypeError, KeyError):
        if versioned:
            return _read(_whole(file.read_text(encoding="utf-8")), unlike)
    own = [entry for entry in answers if entry.kind == kind]
    verdicts = judge.judge([entry.answer for entry in own])
    quality = judge_quality([e.label for e in own], verdicts, [e.answer.proposition for e in own])
    kappa = quality.kappa if math.isfinite(quality.kappa.value) else None
    errors = confusion((entry.label, verdict.label) for entry, verdict in zip(own, verdicts, strict=True))
    counts = tuple(tuple(row) for row in errors.tolist())
    found = Reliability(
        name, kind, len(own), kappa, quality.coverage, unlike, shown=shown_by(own, verdicts), errors=counts
    )
    # A server that did not answer today must not count against the judge for good.
    if versioned and not any(verdict.failed for verdict in verdicts):
        content = json.dumps(asdict(found))
        _keep(file, f"{_mark(content)}\n{content}")
    return found


def shown_by(answers: Sequence[Labelled], verdicts: Sequence[Verdict]) -> Attenuation:
    """How much of a true drift a judge shows by its verdicts on labelled texts; a refusal counts as neutral."""
    propositions = {text: number for number, text in enumerate(dict.fromkeys(e.answer.proposition for e in answers))}
    placed = [
        (column(entry.label), verdict.vector() or (math.nan,) * len(STANCES), propositions[entry.answer.proposition])
        for entry, verdict in zip(answers, verdicts, strict=True)
        if column(entry.label) != NO_STANCE
    ]
    truth = np.array([own for own, _, _ in placed], dtype=np.int64)
    vectors = np.array([own for _, own, _ in placed]).reshape(-1, len(STANCES))
    return attenuation(truth, vectors, np.array([own for _, _, own in placed], dtype=np.int64))


def _whole(text: str) -> dict[str, Any]:
    """What a file holds whose first line is a hash of the rest.

    Raises:
        ValueError: it is damaged.
    """
    mark, _, content = text.partition("\n")
    if mark != _mark(content):
        raise ValueError("not what was written")
    kept: dict[str, Any] = json.loads(content)
    return kept


def _mark(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _read(kept: dict[str, Any], unlike: float) -> Reliability:
    estimates = {name: kept[name] for name in ("kappa", "coverage")}
    kappa, coverage = (None if one is None else Estimate(**one) for one in estimates.values())
    # A file of another form: the caller takes the KeyError for a file that is damaged.
    if coverage is None:
        raise KeyError("coverage")
    own, shown = kept["shown"], tuple(Estimate(**one) for one in kept["shown"]["pairs"])
    return Reliability(
        judge=str(kept["judge"]),
        kind=str(kept["kind"]),
        answers=int(kept["answers"]),
        kappa=kappa,
        coverage=coverage,
        unlike=unlike,
        shown=Attenuation(Estimate(**own["overall"]), shown, tuple(own["texts"])),
        errors=tuple(tuple(row) for row in kept["errors"]),
    )


def _percent(share: Estimate) -> str:
    """A share in per cent with its interval: ``48 % [40, 57]``."""
    if not math.isfinite(share.low):
        return f"{100 * share.value:.0f} %"
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _keep(file: Path, text: str) -> None:
    """Write the whole file or nothing: another process may read it at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
    os.replace(scratch, file)
