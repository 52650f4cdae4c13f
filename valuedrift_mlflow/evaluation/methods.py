"""How something was measured, in the words of a paper's methods section: every setting, and what intervals are."""

from __future__ import annotations

import inspect
import math

from valuedrift_mlflow.evaluation.measurement import Measurement
from valuedrift_mlflow.evaluation.settings import Measuring, MeasuringTraining
from valuedrift_mlflow.report.surroundings import hardware, software
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics import axes, drift, flips
from valuedrift_mlflow.statistics.intervals import ALPHA
from valuedrift_mlflow.statistics.units import FEW_UNITS
from valuedrift_mlflow.suite import Suite

_LEVEL = f"{100 * (1 - ALPHA):g} %"


def asked(suite: Suite) -> str:
    """What was asked."""
    propositions = len(suite.propositions[1])
    keys = f"; its propositions are keyed on {len(suite.axes)} axes, keys {suite.keys_hash}" if suite.axes else ""
    return (
        f"Stances were measured with the suite {suite.source}, version {suite.version}, hash {suite.hash}: "
        f"{len(suite.items):,} prompts on {propositions:,} propositions of {len(suite.topics)} topics{keys}."
    )


def answered(settings: Measuring) -> str:
    """How models were made to answer."""
    sampled = f"at temperature {settings.temperature:g}" if settings.temperature else "greedily"
    often = f"{settings.samples} response{'s' if settings.samples > 1 else ''} to each prompt"
    fewer = settings.checkpoint_samples if isinstance(settings, MeasuringTraining) else None
    between = f" ({fewer} at the checkpoints between the ends of a stage)" if fewer else ""
    thinking = f", thinking on for at most {settings.max_thinking_tokens:,} tokens" if settings.thinking == "on" else ""
    stop = f", ended also by {', '.join(map(repr, settings.stop))}" if settings.stop else ""
    return (
        f"{often}{between} were sampled {sampled} with at most {settings.max_new_tokens:,} new tokens{thinking}{stop}, "
        f"seed {settings.seed}, each from a random stream of its own."
    )


def judged(measurement: Measurement) -> str:
    """How answers were read."""
    refusals = "counts as neutral" if measurement.refusal == "neutral" else "is left out"
    return (
        f"The judge {measurement.judge} read every response as support, neutral or oppose with probabilities, as a "
        f"refusal or as unscored; a refusal {refusals}, and what is unscored is counted and in no mean."
    )


def analysed(found: drift.Drift, suite: Suite) -> str:
    """What intervals, tests and verdicts are."""
    # Its default is the only place that says how many flips there are at least.
    least = int(inspect.signature(drift.analyse).parameters["resamples"].default)
    drawn = max(least, math.ceil(len(found.topics) * len(STANCES) / ALPHA))
    if found.interval == "propositions":
        kind = "t intervals over propositions (CR2 variance, Satterthwaite degrees of freedom)"
    else:
        kind = "t intervals for these prompts, by the variance of responses within prompts"
    return (
        f"Intervals are {_LEVEL} {kind}; those of a total variation (net drift) invert a test. Changes were tested by "
        f"flipping the signs of whole {found.interval} ({drawn:,} flips, all of them for up to {flips.ENUMERATED}), in "
        "one family of all checkpoints, topics and stances of a stage (step-down max-T, family-wise "
        f"{100 * ALPHA:g} %), for topics of at least {FEW_UNITS} {found.interval}. A topic has moved where a test says "
        f"so, has not moved where the whole interval of its net drift is within {found.margin:g}; else nothing can be "
        "told. What has a star is overstated, so it has a second, median-unbiased estimate that holds given the star. "
        f"{_axes_analysed(suite)}"
    )


def _axes_analysed(suite: Suite) -> str:
    if not suite.axes:
        return (
            "The axis of the suite was read off one half of the answers and measured in the other; it was tested by "
            f"{axes.FLIPS:,} permutations of propositions."
        )
    return (
        "Axis shifts are slopes over propositions beside a common term, with t intervals; they were tested by flipping "
        f"signs of propositions ({axes.FLIPS:,} flips, all of them for up to {axes.ENUMERATED}), for axes of at least "
        f"{FEW_UNITS} propositions, and adjusted by Holm's method over the axes of a checkpoint."
    )


def made_with(version: str, commit: str = "") -> str:
    """The software and the machine; ``commit`` of the code that ran, where it is known."""
    of = f" (commit {commit})" if commit else ""
    return f"Made with valuedrift-mlflow {version}{of}, {software()}, on {hardware()}."
