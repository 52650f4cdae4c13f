"""A view of MLflow's UI that is ready: which runs, charts and columns a page opens with.

The UI keeps a view that somebody has saved as an experiment tag, and opens it by the tag's key in the address. The form
of both was read off MLflow 3.17: an object with a name and a state, the state JSON, compressed by zlib, in base 64. A
version that knows another form shows the plain page.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    from mlflow.entities import Run

_TAG = "mlflow.sharedViewState."
_PARENTS = ("pipeline", "ablation")  # runs that are looked at by their stages
_NAME = "attributes.`Run Name`"
# In pixels: MLflow's 190 for names and 100 for all else cut most names, and URIs of data and models.
_WIDE = {f"params.`{key}`": 320 for key in ("data", "model", "baseline")} | {"attributes.`Models`": 260}
_NUMBER, _WORD = 130, 170


@dataclass(frozen=True)
class View:
    """What a page shows.

    Attributes:
        runs: MLflow's filter of the runs.
        lines: whether charts show steps; bars otherwise.
        charts: the metrics that have a chart, by the titles of their groups, in order.
        columns: the metrics and parameters of the table.
        first: the metric that the runs are ordered by, the largest first.
    """

    runs: str
    lines: bool
    charts: Mapping[str, Sequence[str]]
    columns: Sequence[str]
    first: str = "drift/overall"


_OVERALL = [f"stance/overall/{stance}" for stance in STANCES]
_TRUST = ["quality/unscored_rate", "quality/refusal_rate", "drift/minimum_detectable"]
_STANCES = [f"metrics.`{key}`" for key in _OVERALL]
_STAGES = View(
    "tags.`valuedrift.role` = 'stage'",
    True,
    {
        "Stances over all topics": _OVERALL,
        # Not `axes/shifted`: a count of tests, made anew at each checkpoint, that one false star makes a spike of.
        "Drift since the start of the stage": ["drift/overall", "drift_within/overall", "axes/shift_bound"],
        "How sure": _TRUST,
        "Training": ["train/loss", "reference_kl", "train/grad_norm"],
    },
    [
        # The models before what is far to the right on a screen of 1,440 pixels.
        *("metrics.`drift/overall`", *_STANCES, "attributes.`Models`", "metrics.`axes/shifted`"),
        *("metrics.`quality/unscored_rate`", "params.`algorithm`", "params.`data`", "params.`learning_rate`"),
        "params.`beta`",
    ],
)
_EVALUATIONS = View(
    "tags.`valuedrift.role` = 'evaluation'",
    False,
    {
        "Stances over all topics": _OVERALL,
        "Drift from the baseline": ["drift/overall", "drift_within/overall", "axes/shifted"],
        "How sure": _TRUST,
    },
    [
        *("params.`model`", "params.`baseline`", "metrics.`drift/overall`", *_STANCES),
        *("metrics.`quality/unscored_rate`", "params.`judge`", "attributes.`Models`"),
    ],
)
_GAPS = ["value_gap/pairwise", "value_gap/direction", "value_gap/marginal", "value_gap/coverage"]
_AUDITS = View(
    "tags.`valuedrift.role` = 'audit'",
    False,
    {"Value gap": _GAPS, "How sure": ["quality/unscored_rate", "quality/refusal_rate"]},
    # What tells audits apart; the other gaps have their charts.
    ["params.`data`", "metrics.`value_gap/pairwise`", "metrics.`rows`"],
    "value_gap/pairwise",
)
_VIEWS = {"stage": _STAGES, "evaluation": _EVALUATIONS, "audit": _AUDITS}


def _width(column: str) -> int:
    return _WIDE.get(column, _NUMBER if column.startswith("metrics.") else _WORD)


def save_view(run: Run) -> None:
    """Save the view that a run is best looked at in, of a pipeline or an ablation one of its own."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    role = run.data.tags.get("valuedrift.role", "")
    if role in _PARENTS:
        own = f"{_STAGES.runs} and tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        view, name = replace(_STAGES, runs=own), str(run.info.run_name)
    elif role in _VIEWS:
        view, name = _VIEWS[role], f"every {role}"
    else:
        return
    try:
        MlflowClient().set_experiment_tag(run.info.experiment_id, _TAG + _key(run), _saved(f"valuedrift: {name}", view))
    except MlflowException:
        return  # some stores take no tag of this length, and not everybody may set one: the plain page is left


def view_of(run: Run) -> str:
    """The page that shows a run, below the address of the server: its view, or the plain one where it has none."""
    from mlflow import MlflowClient

    page = f"#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning"
    run = MlflowClient().get_run(run.info.run_id)  # as it was when it was opened it has no role
    known = MlflowClient().get_experiment(run.info.experiment_id).tags
    return f"{page}&compareRunsMode=CHART&viewStateShareKey={_key(run)}" if _TAG + _key(run) in known else page


def _key(run: Run) -> str:
    role = run.data.tags.get("valuedrift.role", "")
    return f"valuedrift-{run.info.run_id if role in _PARENTS else role}"


def _saved(name: str, view: View) -> str:
    """A view as the UI saves one."""
    now = int(time.time() * 1000)
    packed = base64.b64encode(zlib.compress(json.dumps(_state(view)).encode())).decode()
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"})


def _state(view: View) -> dict[str, object]:
    sections: list[dict[str, object]] = []
    charts: list[dict[str, object]] = []
    for place, (title, keys) in enumerate(view.charts.items()):
        section = f"valuedrift-{place}"
        sections.append(
            {"uuid": section, "name": title, "display": True, "isReordered": True, "deleted": False}
            | {"isGenerated": False, "columns": 3, "cardHeight": 360}
        )
        charts += [_chart(f"{section}-{number}", section, key, view.lines) for number, key in enumerate(keys)]
    return {
        "searchFilter": view.runs,
        # What moved most comes first. In MLflow's own order, by time, stages stay folded up below their parent.
        "orderByKey": f"metrics.`{view.first}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(view.columns),
        # Widths are read for the columns of this order alone.
        "columnOrder": [_NAME, *view.columns],
        "columnWidths": {_NAME: 320, **{column: _width(column) for column in view.columns}},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,  # or the groups would be sorted by their titles
        "hideEmptyCharts": True,
        "groupBy": None,
    }


def _chart(uuid: str, section: str, key: str, lines: bool) -> dict[str, object]:
    # MLflow shows the key above a chart of this page, whatever name it is given.
    chart: dict[str, object] = {"uuid": uuid, "metricSectionId": section, "metricKey": key, "displayName": key}
    chart |= {"type": "LINE" if lines else "BAR", "deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    if lines:
        chart |= {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0}
        # Shares have one axis, so that charts of them can be compared.
        chart |= {"selectedXAxisMetricKey": "", "range": {"yMin": 0, "yMax": 1} if key in _OVERALL else {}}
        chart |= {"yAxisKey": "metric", "yAxisExpressions": []}
        chart |= {"selectedMetricKeys": [key], "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
        chart |= {"ignoreOutliers": False}
    return chart
