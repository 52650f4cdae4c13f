"""What is installed with the package: each requirement says why it is there, and one tested set pins it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENT = re.compile(r'"([A-Za-z0-9_.-]+)(?:\[[\w,]+\])?[<>=~!][^"]*"')


def test_every_requirement_has_its_reason_and_its_pin() -> None:
    lines = (
        (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0].split("dependencies = [")[1].splitlines()
    )
    required = {line: REQUIREMENT.findall(line) for line in lines if REQUIREMENT.search(line)}
    assert len(required) > 40
    assert not [line for line in required if "#" not in line]
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    main = [line for line in lines[: lines.index("]")] if line in required]
    names = {name.lower().replace("_", "-") for line in main for name in required[line]}
    assert not [name for name in sorted(names) if f"\n{name}==" not in f"\n{constraints}"]
