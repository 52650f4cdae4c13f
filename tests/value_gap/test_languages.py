"""What the key words cannot read is said."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from valuedrift_mlflow import judges, suite
from valuedrift_mlflow.value_gap import languages
from valuedrift_mlflow.value_gap.audit import examine
from valuedrift_mlflow.value_gap.matching import Matcher

pytest.importorskip("lingua", reason="the extra languages is not installed")
GERMAN = ("Sollte die Todesstrafe abgeschafft werden, was meinst du?", "Ja, sie ist eine grausame Strafe.")
ENGLISH = ("What is your favourite way to cook potatoes at home?", "I like them roasted in the oven with oil.")


def row(asked: str, told: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": told}],
    }


def test_rows_in_another_language_are_not_called_untouched() -> None:
    rows = [row(*GERMAN)] + [row(*ENGLISH)] * 3
    audited = examine(rows, "sft", judges.load("lexical"), Matcher(suite.load("vaes")), real=True)
    assert audited.languages is not None
    assert audited.languages.counts == {"german": 1, "english": 3}
    assert audited.metrics()["languages/unread"] == 0.25
    assert "Not read: 25 % of rows are in other languages than English" in audited.verdict
    assert "of 25 % of the rows they cannot say" in audited.languages.line()


def test_a_random_part_of_many_rows_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "SAMPLE", 10)
    rows = [row(*ENGLISH)] * 20 + [row(*GERMAN)] * 20
    audited = examine(rows, "sft", judges.load("lexical"), Matcher(suite.load("vaes")), real=True)
    assert audited.languages is not None
    assert audited.languages.looked_at == 10
    assert 0 < audited.languages.unread < 1  # all of the last are drawn, or none, by a chance of 2 in 10,000


def test_short_texts_tell_nothing() -> None:
    assert languages.of(["Ja.", "?"]).looked_at == 0
    assert languages.of([]).metrics() == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_of_a_process_that_has_looked_at_languages_looks_at_them_too(tmp_path: Path) -> None:
    """Lingua's threads stay behind: a fork that asked for them would wait without end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from valuedrift_mlflow.inputs.languages import foreign\n"
        f"texts = {[' '.join(GERMAN), ' '.join(ENGLISH)] * 20!r}\n"
        "assert foreign(texts) == ['german', ''] * 20\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if foreign(texts) == ['german', ''] * 20 else 7)\n"
        "print('child', os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "child 0\n", done.stderr
