"""Do the intervals hold what they say? People's labels of a few responses, with judges from bad to good.

python benchmarks/label_validity.py
python benchmarks/label_validity.py --repetitions 200 --labels 50 --kappas 0.3

Planted: 11 topics of 10 propositions with 10 responses each (5 prompts, 2 samples), a mix of stances for every topic,
propositions that differ around it. A judge errs by the stance: it reads support and opposition as neutral (most of its
errors), leaves some unscored, and is less sure where it is wrong. A few responses are drawn as `valuedrift review`
draws them and labelled without error. The truth is the mix of the topics that propositions and responses were drawn
from, and what is measured:

- coverage: how often the 95 % interval holds the truth, for the mean over topics and for single topics, and for the
  change between two such measurements (half of the labels in each);
- bias: mean error of the estimate, the largest of the three stances; beside it that of the judge alone;
- width: of the interval by that of the labels alone.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.evaluation.review import drawn_responses
from valuedrift_mlflow.statistics.prediction_powered import Powered, Sample, powered_drift, powered_stances

Floats = NDArray[np.float64]
TOPICS, PROPOSITIONS, RESPONSES, SAMPLES = 11, 10, 10, 2
ALIKE = 6.0  # concentration of the propositions around their topic; the larger, the more alike
PULLED = 0.3  # how far a change goes
ERRORS = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.7], [0.2, 0.8, 0.0]])  # what is read instead, by the true stance
UNREAD = np.array([0.05, 0.20, 0.10])  # share left unscored, by the true stance


@dataclass(frozen=True)
class World:
    """The mixes of T topics (T, 3) before and after a change, and the confusion matrix (3, 3) of a judge.

    The change leaves most of a mix as it was and puts some of ``pull`` in: in every proposition, so that its mixes
    before and after are alike.
    """

    before: Floats
    pull: Floats
    confusion: Floats

    @property
    def after(self) -> Floats:
        """(T, 3)."""
        changed: Floats = (1 - PULLED) * self.before + PULLED * self.pull
        return changed

    def propositions(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """The mixes of T x P propositions before and after, (T P, 3) each."""
        before, pull = (
            np.stack([rng.dirichlet(ALIKE * mix) for mix in mixes for _ in range(PROPOSITIONS)])
            for mixes in (self.before, self.pull)
        )
        return before, (1 - PULLED) * before + PULLED * pull


def world(kappa: float, seed: int = 5) -> World:
    """A world whose judge has about this kappa on the responses it scores."""
    rng = np.random.default_rng(seed)
    before = rng.dirichlet([4.0, 1.6, 2.4], TOPICS)
    pull = rng.dirichlet([1.0, 1.0, 3.0], TOPICS)
    low, high = 0.0, 1.0  # the share of right readings at which kappa is as wanted, by halving
    for _ in range(40):
        right = (low + high) / 2
        low, high = (right, high) if kappa_of(before.mean(axis=0), _confusion(right)) < kappa else (low, right)
    return World(before, pull, _confusion(high))


def _confusion(right: float) -> Floats:
    confusion: Floats = right * np.eye(3) + (1 - right) * ERRORS
    return confusion


def kappa_of(mix: Floats, confusion: Floats) -> float:
    """Cohen's kappa of a judge on the responses it scores."""
    joint = (mix * (1 - UNREAD))[:, None] * confusion
    joint /= joint.sum()
    chance = joint.sum(axis=0) @ joint.sum(axis=1)
    return float((np.trace(joint) - chance) / (1 - chance))


def measured(mix: Floats, confusion: Floats, labels: int, rng: np.random.Generator) -> Sample:
    """One measurement of responses drawn from propositions (T P, 3), its judge's verdicts, and labels of a few."""
    cells = TOPICS * PROPOSITIONS
    topics, clusters = (
        np.arange(cells * RESPONSES) // (PROPOSITIONS * RESPONSES),
        np.arange(cells * RESPONSES) // RESPONSES,
    )
    truth = _drawn(mix[clusters], rng)
    said = _drawn(confusion[truth], rng)
    sure = np.where(said == truth, rng.uniform(0.5, 1, len(truth)), rng.uniform(0.4, 0.9, len(truth)))
    verdicts = (1 - sure[:, None]) / 2 + (1.5 * sure[:, None] - 0.5) * np.eye(3)[said]
    unread = rng.random(len(truth)) < UNREAD[truth]
    verdicts[unread] = np.nan
    confidence = np.where(unread, 0.0, sure)
    weights = np.zeros(len(truth))
    for topic in range(TOPICS):
        own = np.flatnonzero(topics == topic)
        size = labels // TOPICS + (topic < labels % TOPICS)
        read_as = np.where(unread, 3, said)[own]
        drawn, probability = drawn_responses(read_as.tolist(), confidence[own].tolist(), size, rng)
        weights[own[drawn]] = 1 / probability[drawn]
    given = np.full((len(truth), 3), np.nan)
    given[weights > 0] = np.eye(3)[truth[weights > 0]]
    return Sample(verdicts, given, weights, topics, clusters, np.arange(len(truth)) // SAMPLES)


def _drawn(mixes: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    drawn: NDArray[np.int64] = (rng.random((len(mixes), 1)) > np.cumsum(mixes, axis=1)[:, :2]).sum(axis=1)
    return drawn


@dataclass(frozen=True)
class Validity:
    """What many measurements come to: shares in [0, 1], the biases in probability."""

    coverage: float
    topic_coverage: float
    bias: float
    bias_error: float
    judge_bias: float
    width_ratio: float
    widest_ratio: float


def validity(draw: Callable[[], Powered], truth: Floats, repetitions: int) -> Validity:
    """Repeat a measurement whose topics have the true figures (T, 3)."""
    true = np.vstack([truth, truth.mean(axis=0)])
    held, errors, judge, ratios = [], [], [], []
    for _ in range(repetitions):
        powered = draw()
        low, high = powered.interval[..., 0], powered.interval[..., 1]
        held.append(np.where(np.isnan(low), np.nan, (low - 1e-12 <= true) & (true <= high + 1e-12)))
        errors.append(powered.value - true)
        judge.append(powered.judge_alone - true)
        ratios.append(powered.width_ratio)
    return Validity(
        coverage=float(np.mean(np.array(held)[:, -1])),
        topic_coverage=float(np.nanmean(np.array(held)[:, :-1])),
        bias=float(np.abs(overall := np.mean(errors, axis=0)[-1]).max()),
        bias_error=float(np.std(errors, axis=0)[-1][np.abs(overall).argmax()] / np.sqrt(repetitions)),
        judge_bias=float(np.abs(np.mean(judge, axis=0)[-1]).max()),
        width_ratio=float(np.mean(np.array(ratios)[:, -1])),
        widest_ratio=float(np.max(np.array(ratios)[:, -1])),
    )


def stances_and_drift(kappa: float, labels: int, repetitions: int, seed: int = 0) -> tuple[Validity, Validity]:
    """The validity of stances, and of the drift between two measurements that share the labels."""
    own, rng = world(kappa), np.random.default_rng([seed, labels, round(100 * kappa)])
    stances = validity(
        lambda: powered_stances(measured(own.propositions(rng)[0], own.confusion, labels, rng), TOPICS),
        own.before,
        repetitions,
    )

    def drift() -> Powered:
        before, after = (measured(mix, own.confusion, labels // 2, rng) for mix in own.propositions(rng))
        return powered_drift(before, after, TOPICS)

    return stances, validity(drift, own.after - own.before, repetitions)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each judge, number of labels, and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappas", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 120, 250, 500])
    parser.add_argument("--repetitions", type=int, default=500)
    options = parser.parse_args(arguments)
    print("kappa labels figure   coverage  topics'    bias (standard error)  judge's   width by labels alone (widest)")
    for kappa in options.kappas:
        for labels in options.labels:
            for name, found in zip(
                ("stances", "drift"), stances_and_drift(kappa, labels, options.repetitions), strict=True
            ):
                figures = (
                    f"{kappa:5.1f} {labels:6d} {name:8s} {found.coverage:8.3f} {found.topic_coverage:8.3f} "
                    f"{found.bias:7.4f} ({found.bias_error:.4f})        {found.judge_bias:8.3f}   "
                    f"{found.width_ratio:.2f} ({found.widest_ratio:.2f})"
                )
                print(figures, flush=True)


if __name__ == "__main__":
    main()
