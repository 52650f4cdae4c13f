"""Judges of users: a class in a module beside the recipe, or of an installed package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from parts_of_users import install, working_folder

from valuedrift_mlflow import judges
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.judge import identity
from valuedrift_mlflow.stances import Answer, Label

ANSWERS = [Answer("Taxes should rise.", "Should taxes rise?", text) for text in ("Yes.", "No.")]
JUDGE = """
from valuedrift_mlflow.stances import Verdict

class First:
    name = "first"
    version = "2"
    def __init__(self, word="Yes"):
        self.word = word
    def judge(self, answers):
        return [Verdict.of((1, 0, 0) if self.word in a.response else (0, 0, 1)) for a in answers]

class Second(First):
    name = "second"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as folder:
        yield folder


def test_a_class_beside_the_recipe_alone_with_options_and_in_a_panel(folder: Path) -> None:
    (folder / "mine_j.py").write_text(JUDGE)
    judge = judges.load("mine_j:First")
    assert identity(judge) == "first@2"
    assert [verdict.label for verdict in judge.judge(ANSWERS)] == [Label.SUPPORT, Label.OPPOSE]
    other = judges.load("mine_j:First?word=No")
    assert [verdict.label for verdict in other.judge(ANSWERS)] == [Label.OPPOSE, Label.SUPPORT]
    panel = judges.load("lexical, mine_j:First, mine_j:Second?word=No")
    assert panel.name == "lexical, first, second"
    assert [name for name, _ in panel.judge(ANSWERS)[0].opinions] == ["lexical", "first", "second"]


def test_a_judge_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder / "site", "wvs_j", {"judges": {"wvs": "wvs_j:First", "wvs2": "wvs_j:Gone"}}, JUDGE)
    monkeypatch.syspath_prepend(folder / "site")
    assert judges.load("wvs").name == "first"
    assert judges.load("wvs?word=No,lexical").name == "first, lexical"
    with pytest.raises(InputError, match=r"found 'oracle'.*likelihood alone, and from installed packages: wvs, wvs2"):
        judges.load("oracle")
    with pytest.raises(InputError, match=r"found 'wvs2'.*wvs_j:Gone \(wvs_j 1.2\): AttributeError"):
        judges.load("wvs2")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("absent_j:First", r"found 'absent_j:First'.*ModuleNotFoundError"),
        ("mine_j:Gone", "a Class that mine_j has"),
        ("mine_j:First?words=3", r"can be made with words; TypeError: .*'words'"),
        ("mine_j:nothing", r"a name \(a text\) and a method judge\(answers\); it is of type dict"),
        ("mine_j:fails", "made without arguments; OSError: no weights"),
        ("mine_j:First,mine_j:First?word=No", "judge: found 'first', allowed: a name of its own for every member"),
        ("openai:First", "openai:/MODEL"),
    ],
)
def test_what_is_no_judge_is_refused_before_anything_is_judged(folder: Path, uri: str, words: str) -> None:
    code = "def nothing(): return {}\ndef fails(): raise OSError('no weights')\n"
    (folder / "mine_j.py").write_text(JUDGE + code)
    with pytest.raises(InputError, match=words):
        judges.load(uri)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("None", "found None, allowed: a list of Verdict"),
        ("['support', 'oppose']", "found 'support', allowed: a list that holds nothing but Verdict"),
        ("[None, None]", "found None, allowed: a list that holds nothing but Verdict"),
        ("[UNSCORED]", "found '1 verdicts', allowed: one for each of the 2 answers"),
    ],
)
def test_what_it_returns_is_looked_at(folder: Path, returned: str, words: str) -> None:
    code = "from valuedrift_mlflow.stances import UNSCORED\nclass Strange:\n    name = 'strange'\n"
    (folder / "strange_j.py").write_text(f"{code}    def judge(self, answers): return {returned}\n")
    with pytest.raises(InputError, match=f"what judge strange_j:Strange returns: {words}"):
        judges.load("strange_j:Strange").judge(ANSWERS)
