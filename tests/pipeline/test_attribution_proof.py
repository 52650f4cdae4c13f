"""Attribution proven by doing, on one seed of the benchmark: what is found is left out, and the drift goes with it."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from working_folder import working_in

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    """The benchmark, whose rows and trainings are the test's too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("attribution_proof", BENCHMARKS / "attribution.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "attribution_proof", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


@pytest.mark.slow  # four minutes of CPU: the model that knows plain answers, and four trainings
def test_the_drift_goes_with_the_rows_that_are_found(proof: ModuleType, shared_folder: Path) -> None:
    """12 of 600 rows support on a topic; the other 588 are plain answers."""
    with working_in(shared_folder):
        start = proof.start_model(shared_folder)
        told = proof.found("sft", 17, 600, start)
        assert told["found"] >= 0.9 * told["hidden"]  # among the first 24
        names = ("without first", "without random", "first alone")
        drifts = {name: proof.again(told, name, start)[0] for name in names}
    assert told["all"][0] > 0.2  # else there is nothing to explain
    assert abs(drifts["without first"]) < 0.2 * told["all"][0]
    assert drifts["without random"] > 0.5 * told["all"][0]
    assert drifts["first alone"] > 0.5 * told["all"][0]
