import importlib.util
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_the_everyday_names(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    from hatchling.builders.wheel import WheelBuilder  # type: ignore[import-not-found,unused-ignore]

    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("valuedrift_mlflow/suite/names.yaml")
    assert packed == (ROOT / "valuedrift_mlflow" / "suite" / "names.yaml").read_bytes()
