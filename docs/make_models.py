"""Write the table of docs/models.md from what the tests of the architectures come to, slow ones included.

    python docs/make_models.py

It takes about ten minutes on two cores, and needs the test dependencies.
"""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table: docs/make_models.py -->\n", "<!-- end of the table -->\n"
WAYS = {"asked": "asked, forced choice", "sft": "SFT", "lora": "SFT, LoRA", "dpo": "DPO", "ppo": "PPO", "grpo": "GRPO"}


def outcomes(report: Path) -> dict[str, dict[str, bool]]:
    """Whether the tests passed, by architecture and way."""
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        named = re.search(r"\[(.*)\]", case.get("name", ""))
        if named is None:
            continue
        way, _, family = named[1].rpartition("-")
        found[family][way or "asked"] = case.find("failure") is None and case.find("error") is None
    return found


def table(found: dict[str, dict[str, bool]]) -> str:
    """The outcomes in markdown."""
    lines = [f"| architecture | {' | '.join(WAYS.values())} |", f"|---|{'---|' * len(WAYS)}"]
    words = {True: "yes", False: "no", None: ""}
    for family, passed in found.items():
        lines.append(f"| `{family}` | {' | '.join(words[passed.get(way)] for way in WAYS)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the tests and write the page."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        tests = ["tests/models/test_families.py", "-m", "slow or not slow", "-q", "-p", "no:cacheprovider"]
        subprocess.run([sys.executable, "-m", "pytest", *tests, f"--junitxml={report}"], cwd=ROOT, check=False)
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(text[:before] + table(outcomes(report)) + text[after:], encoding="utf-8")


if __name__ == "__main__":
    main()
