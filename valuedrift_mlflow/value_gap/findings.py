"""What an audit of a dataset has found: the stances of judged responses, and what they come to topic by topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.data.datasets import Kind
from valuedrift_mlflow.evaluation.confusion import column
from valuedrift_mlflow.evaluation.reliability import Reliability
from valuedrift_mlflow.inputs.rows import Record
from valuedrift_mlflow.stances import LABELS, STANCES, Label
from valuedrift_mlflow.statistics.adjusted_gap import AdjustedGap
from valuedrift_mlflow.statistics.intervals import Estimate
from valuedrift_mlflow.statistics.style_gap import FIGURES, StyleGap
from valuedrift_mlflow.statistics.value_gap import ValueGap
from valuedrift_mlflow.value_gap.discovery import Found
from valuedrift_mlflow.value_gap.languages import Languages
from valuedrift_mlflow.value_gap.row_labels import LabelledFigures

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


GAPS = ("pairwise", "marginal", "direction")
_HEADLINES = (*GAPS, "coverage", "adjusted")  # of all topics together, what charts show
VERDICT_OF = np.array([column(label) for label in LABELS])  # of a label's place in ``LABELS``


# eq=False: a comparison of arrays has no single truth value.
@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The N judged responses of one side (chosen, rejected, or the answers of SFT data).

    Attributes:
        held: (N, 3) the stance that each takes, NaN where unscored; a refusal is neutral.
        probabilities: (N, 3) the judge's probabilities, NaN where unscored; a refusal is neutral.
        labels: (N,) place of each verdict's label in ``LABELS``.
    """

    held: Floats
    probabilities: Floats
    labels: NDArray[np.int8]

    def of(self, rows: NDArray[np.bool_]) -> Side:
        """Some of them."""
        return Side(self.held[rows], self.probabilities[rows], self.labels[rows])

    @property
    def verdicts(self) -> Integers:
        """(N,) 0 to 2 for a stance, a refusal as neutral, and 3 for none."""
        return VERDICT_OF[self.labels]

    def count(self, label: Label) -> int:
        """How many have this label."""
        return int((self.labels == LABELS.index(label)).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What a topic's rows, or those of all topics, come to.

    Attributes:
        coverage: share of all answers (of pairs: pairs of answers) that touch the topic.
        touched: how many that is.
        proposition_coverage: share of all that touch a proposition of it; everything below is about these.
        placed: how many that is.
        mix: support, neutral and oppose of their answers (of pairs: the chosen ones), means of the judge's
            probabilities, as models are measured.
        gap: the value gap of pairs, from the stances that responses take; None of SFT data.
        pairwise_soft: the pairwise gap from the judge's probabilities; None of SFT data.
        judged: responses that were judged.
        unscored: how many of these the judge could not place.
        refusals: how many of these are refusals.
        error: what the judge's errors are to the pairwise gap; None of SFT data, and where nobody has checked the judge
            on such texts (the embedded world).
        labelled: what these rows come to with people's labels; None without labels of rows on enough prompts.
    """

    coverage: Estimate
    touched: int
    proposition_coverage: Estimate
    placed: int
    mix: tuple[Estimate, ...]
    gap: ValueGap | None
    pairwise_soft: Estimate | None
    judged: int
    unscored: int
    refusals: int
    error: AdjustedGap | None = None
    labelled: LabelledFigures | None = None

    @property
    def topic_only(self) -> int:
        """How many rows touch the topic and none of its propositions."""
        return self.touched - self.placed

    def estimates(self) -> dict[str, Estimate]:
        """The figures of these rows by their names, each with its interval."""
        estimates = {"coverage": self.coverage, "proposition_coverage": self.proposition_coverage}
        if self.gap is not None and self.pairwise_soft is not None:
            estimates |= {name: getattr(self.gap, name) for name in GAPS}
            estimates["pairwise_soft"] = self.pairwise_soft
        if self.error is not None:
            estimates |= {"of_error": self.error.of_error, "adjusted": self.error.adjusted}
        return estimates


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """A dataset's stances and value gap, and the run that holds them.

    Attributes:
        data: URI of the data.
        kind: ``pairs`` or ``sft``.
        rows: how many rows were read, as many as a training has of them.
        answers: how many answers they hold, or pairs of answers: more than rows in data of several turns.
        judge: name and version of the judge.
        suite: identity of the suite.
        overall: all topics together.
        topics: of every topic that a row touches, in the suite's order.
        style: the style gap of pairs; None of SFT data.
        topic_only: rows that touch a topic and none of its propositions, the first of each topic.
        opinionated: the rows whose sides stand furthest apart, or whose answers take the strongest stance.
        topic_of: (N,) place of each judged row's topic in ``topics``.
        sides: one for SFT data, chosen and rejected for pairs.
        costs: what the verdicts cost, as ``cost/judge_...`` metrics.
        verdict: what to expect, in words, with its ground.
        trust: what the judge reaches on labelled texts; None in the embedded world and where it has read nothing.
        about: how the data were read, and their first row, in lines.
        languages: those of a random part of the rows; None in the embedded world and without the extra ``languages``.
        run_id: the MLflow run; empty where none was asked for.
        sheet: judged rows drawn at random, for people to label; none in the embedded world.
    """

    data: str
    kind: Kind
    rows: int
    judge: str
    suite: str
    overall: Findings
    topics: dict[str, Findings]
    style: StyleGap | None
    opinionated: list[Record]
    topic_only: list[Record]
    topic_of: Integers
    sides: tuple[Side, ...]
    costs: Mapping[str, float]
    verdict: str = ""
    trust: Reliability | None = None
    run_id: str = ""
    answers: int = 0
    about: tuple[str, ...] = ()
    languages: Languages | None = None
    sheet: Sequence[Record] = ()

    @property
    def stance_mix(self) -> dict[str, tuple[float, ...]]:
        """(support, neutral, oppose) of every topic with a scored answer, as `datasets.TrainingData` has it."""
        mixes = {topic: tuple(own.value for own in found.mix) for topic, found in self.topics.items()}
        return {topic: mix for topic, mix in mixes.items() if np.isfinite(mix).all()}

    def metrics(self) -> dict[str, float]:
        """What the run's charts show; those that are undefined are left out, and what does not apply.

        All figures of every topic with their intervals are in `table`, the style gap's in `style_table`.
        """
        overall, judged = self.overall, max(1, self.overall.judged)
        figures = overall.estimates()
        metrics = {f"value_gap/{name}": figures[name].value for name in _HEADLINES if name in figures}
        if overall.labelled is not None:
            # As the figures without labels are called: of all topics together a gap has no topic's name.
            prefix = "ppi/value_gap" if overall.gap is not None else "ppi/stance_mix/overall"
            metrics |= {f"{prefix}/{figure}": own.value for figure, own in overall.labelled.estimates.items()}
            metrics["labels/count"] = overall.labelled.count
        for topic, found in self.topics.items():
            if found.gap is not None:
                metrics[f"value_gap/{topic}/pairwise"] = found.gap.pairwise.value
            for stance, share in zip(STANCES, found.mix, strict=True):
                metrics[f"stance_mix/{topic}/{stance.value}"] = share.value
        if self.style is not None:
            metrics["style_gap/length_ratio"] = self.style.length_ratio.value
        metrics |= {
            "rows": self.rows,
            **({"answers": self.answers} if self.answers != self.rows else {}),
            "quality/unscored_rate": overall.unscored / judged,
            "quality/refusal_rate": overall.refusals / judged,
            **self.costs,
            **({"languages/unread": self.languages.unread} if self.languages and self.languages.looked_at else {}),
            **(self.trust.headline() if self.trust is not None else {}),
        }
        return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}

    def style_table(self) -> pd.DataFrame:
        """One row for each figure of the style gap of pairs with its interval: the table ``style_gap.json``."""
        import pandas as pd

        if self.style is None:
            return pd.DataFrame()
        return pd.DataFrame([{"figure": name} | _with_ends("value", getattr(self.style, name)) for name in FIGURES])

    def table(self) -> pd.DataFrame:
        """One row for all topics, then one for each: rows, coverage, stance mix, gaps, intervals, what is unscored."""
        import pandas as pd

        rows = []
        for topic, found in {"all": self.overall, **self.topics}.items():
            row: Record = {"topic": topic, "rows": found.touched, "rows_on_a_proposition": found.placed}
            row["rows_on_the_topic_only"] = found.topic_only
            for name, estimate in found.estimates().items():
                row |= _with_ends(name, estimate)
            for stance, estimate in zip(STANCES, found.mix, strict=True):
                row |= _with_ends(stance.value, estimate)
            if found.gap is not None:
                row["scored_pairs"] = found.gap.scored
            if found.labelled is not None:
                row["labels"] = found.labelled.count
                for figure, estimate in found.labelled.estimates.items():
                    row |= _with_ends(f"ppi_{figure}", estimate)
            rows.append(row | {"judged": found.judged, "unscored": found.unscored, "refusals": found.refusals})
        frame = pd.DataFrame(rows)
        # As objects, or None would turn back into NaN, which JSON has not.
        return frame.astype(object).where(frame.notna(), None)


def _with_ends(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_ci_low": estimate.low, f"{name}_ci_high": estimate.high}


@dataclass(frozen=True)
class Discovery:
    """Contested questions of a dataset beyond a suite: where they were written, and the audit on them.

    Attributes:
        file: the suite file; None where nothing was found.
        found: the topics, with how many rows ask each.
        audit: the stances on these topics; None where nothing was found.
    """

    file: Path | None
    found: Found
    audit: Audit | None
