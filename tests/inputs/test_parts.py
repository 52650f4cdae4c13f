"""Parts of users: modules in the working folder, and packages as pip installs them (a folder with its dist-info)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts_of_users import install, working_folder

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.modules import NotImported, only_looked_up
from valuedrift_mlflow.inputs.parts import Registry, import_object, is_object, known, load_object, load_plugin, plugins

GROUP = "valuedrift_mlflow.judges"
BUILT_IN = {"counter": "collections:Counter", "ordered": "collections:OrderedDict"}
JUDGES: Registry[Callable[..., object]] = Registry(GROUP, "class", BUILT_IN)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as here:
        yield here


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, names: dict[str, str], code: str) -> None:
    """What ``pip install`` leaves of a package with judges of these names."""
    site = folder / f"site-{package}"
    install(site, package, {"judges": names}, code)
    monkeypatch.syspath_prepend(site)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mine:Judge", True),
        ("my.package.part:make_it", True),
        ("lexical", False),
        ("openai:/gpt", False),
        ("hf:./folder", False),
        ("mine:Judge?votes=3", False),
        (":Judge", False),
        ("mine:", False),
    ],
)
def test_the_form_of_an_object(text: str, expected: bool) -> None:
    assert is_object(text) is expected


# module:object -------------------------------------------------------------------------------------------------------


def test_an_object_beside_the_recipe(folder: Path) -> None:
    (folder / "beside.py").write_text("class Judge:\n    name = 'mine'\n")
    found = load_object("beside:Judge", "judge", "class")
    assert found.name == "mine"  # type: ignore[attr-defined]
    assert JUDGES.get("beside:Judge", "judge") is found


def test_a_module_of_the_working_folder_hides_no_library(folder: Path) -> None:
    (folder / "json.py").write_text("def loads(text): return None\n")
    assert import_object("json:loads", "reward", "function")("3") == 3


NO_PARTS = {
    "os:system": "os is a module of Python itself",
    "posix:system": "posix is a module of Python itself",
    "builtins:exec": "builtins is a module of Python itself",
    "os.path:join": "os is a module of Python itself",
    "pandas:read_pickle": "pandas is a library that valuedrift_mlflow itself needs",
    "torch.hub:load": "torch is a library that valuedrift_mlflow itself needs",
    "joblib:load": "joblib is a library that valuedrift_mlflow itself needs",
    "pip:main": "pip is a library that valuedrift_mlflow itself needs",
    "valuedrift_mlflow.tracking.packaged:load_pyfunc": "of valuedrift_mlflow itself: ",
}


@pytest.mark.parametrize(("uri", "reason"), NO_PARTS.items())
def test_a_function_that_is_no_part_of_an_experiment_is_refused(folder: Path, uri: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        load_object(uri, "ppo.reward", "function")
    assert str(caught.value).startswith(f"ppo.reward: found '{uri}', allowed: module:function of your own")
    assert reason in str(caught.value)


def test_what_is_only_looked_at_is_found_and_not_imported(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (folder / "deep" / "part.py").write_text("raise SystemExit('imported')\ndef f(): ...\nfrom x import *\n")
    (folder / "bare.py").write_text("raise SystemExit('imported')\nif True:\n    from y import g as h\n")
    with only_looked_up() as said:
        for uri in ("deep.part:f", "deep.part:of_star", "bare:h"):
            with pytest.raises(NotImported):
                load_object(uri, "judge", "class")
        for uri in ("bare:g", "bare.inner:h", "deep.absent:f", "absent:f"):
            with pytest.raises(InputError):
                load_object(uri, "judge", "class")
    assert [line.partition(" is ")[0] for line in said] == [
        "judge deep.part:f",
        "judge deep.part:of_star",
        "judge bare:h",
    ]
    assert "bare.py" in said[2]
    assert not {"deep", "bare"} & set(sys.modules)


@pytest.mark.parametrize(
    ("code", "uri", "line"),
    [
        (
            "",
            "absent_module:f",
            "module:function that can be imported; ModuleNotFoundError: No module",
        ),
        ("import absent_library\ndef f(): ...", "broken:f", "ModuleNotFoundError: No module named 'absent_library'"),
        ("raise RuntimeError('no\\n licence')\nf = 3", "broken:f", "RuntimeError: no licence"),
        ("def f(:", "broken:f", "SyntaxError"),
        ("import sys; sys.exit(3)\nf = 3", "broken:f", "SystemExit: 3"),
        ("def __getattr__(name): raise OSError('no file')", "broken:f", "OSError: no file"),
        ("def g(): ...", "broken:f", "allowed: a function that broken has"),
        ("f = 3", "broken:f", "allowed: a function that broken has; f is of type int"),
    ],
)
def test_an_object_that_cannot_be_had_is_one_line_with_its_reason(folder: Path, code: str, uri: str, line: str) -> None:
    (folder / "broken.py").write_text(code)
    with pytest.raises(InputError) as caught:
        load_object(uri, "ppo.reward", "function")
    [shown] = str(caught.value).splitlines()
    assert shown.startswith(f"ppo.reward: found '{uri}', allowed: ")
    assert line in shown


# Installed packages --------------------------------------------------------------------------------------------------


def test_an_installed_part_is_known_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugins(GROUP) == {}
    assert (JUDGES.names(), known(GROUP, "lexical")) == (["counter", "ordered"], "lexical")
    code = "class Judge:\n    class Strict: ...\n"
    installed(folder, monkeypatch, "wvs", {"wvs": "wvs:Judge", "strict": "wvs:Judge.Strict"}, code)
    assert list(plugins(GROUP)) == ["strict", "wvs"]
    assert "wvs" not in sys.modules  # nothing is imported before it is asked for
    assert JUDGES.names() == ["counter", "ordered", "strict", "wvs"]
    assert JUDGES.get("wvs", "judge") is load_plugin(GROUP, "wvs", "judge", "class") is sys.modules["wvs"].Judge
    assert JUDGES.get("strict", "judge") is sys.modules["wvs"].Judge.Strict
    assert plugins("valuedrift_mlflow.formats") == {}


def test_a_part_of_this_package_is_imported_when_it_is_asked_for() -> None:
    lazy: Registry[Callable[..., object]] = Registry(GROUP, "class", {"good": "fractions:Fraction", "bad": "absent:No"})
    assert lazy.names() == ["good", "bad"]
    assert lazy.get("good", "judge")(1, 2) == 0.5


def test_an_unknown_name_is_answered_with_all_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        JUDGES.get("oracle", "judge")
    assert caught.value.problems == ["judge: found 'oracle', allowed: counter, ordered, module:class"]
    installed(folder, monkeypatch, "wvs", {"wvs": "wvs:Judge", "ess": "wvs:Judge"}, "class Judge: ...")
    told: Registry[Callable[..., object]] = Registry(GROUP, "class", BUILT_IN, "counter or ordered:N")
    with pytest.raises(InputError, match=r"allowed: counter or ordered:N, and from installed packages: ess, wvs$"):
        told.get("oracle", "judge")
    with pytest.raises(InputError, match=r"allowed: module:class, and from installed packages: ess, wvs$"):
        load_plugin(GROUP, "oracle", "judge", "class")


@pytest.mark.parametrize(
    ("code", "value", "line"),
    [
        (
            "import absent_library",
            "wvs:Judge",
            "wvs:Judge (wvs 1.2): ModuleNotFoundError: No module named",
        ),
        ("raise SystemExit('no licence')", "wvs:Judge", "wvs:Judge (wvs 1.2): SystemExit: no licence"),
        ("", "wvs:Judge", "wvs:Judge (wvs 1.2): AttributeError: module 'wvs' has no attribute 'Judge'"),
        ("Judge = 3", "wvs:Judge", "allowed: a class; wvs:Judge (wvs 1.2) is of type int"),
        ("", "wvs", "allowed: a class; wvs (wvs 1.2) is of type module"),
        ("", "no value", "a class that can be imported; no value (wvs 1.2) is not of the form module:class"),
        ("", "wvs:", "a class that can be imported; wvs: (wvs 1.2) is not of the form module:class"),
    ],
)
def test_an_installed_part_that_cannot_be_had_is_named_with_its_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, value: str, line: str
) -> None:
    installed(folder, monkeypatch, "wvs", {"wvs": value}, code)
    assert JUDGES.names()[-1] == "wvs"  # listed, not dropped in silence
    with pytest.raises(InputError) as caught:
        JUDGES.get("wvs", "judge")
    [shown] = str(caught.value).splitlines()
    assert shown.startswith("judge: found 'wvs', allowed: a class")
    assert line in shown


def test_a_name_that_two_packages_give_is_refused_where_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("one", "two"):
        installed(
            folder, monkeypatch, package, {"same": f"{package}:Judge", package: f"{package}:Judge"}, "class Judge: 1"
        )
    assert JUDGES.names() == ["counter", "ordered", "one", "same", "two"]
    assert JUDGES.get("one", "judge") is sys.modules["one"].Judge
    for ask in (JUDGES.get, lambda name, field: load_plugin(GROUP, name, field, "class")):
        with pytest.raises(InputError) as caught:
            ask("same", "judge")
        [line] = caught.value.problems
        assert line.startswith("judge: found 'same', allowed: a name that one part has; ")
        assert "one:Judge (one 1.2)" in line and "two:Judge (two 1.2)" in line
        assert line.endswith("have it: uninstall all but one, or write module:class")


def test_a_package_cannot_take_the_name_of_a_part_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(folder, monkeypatch, "taker", {"counter": "taker:Judge"}, "class Judge: ...")
    assert JUDGES.names() == ["counter", "ordered"]
    ours, theirs = "collections:Counter (valuedrift-mlflow)", "taker:Judge (taker 1.2)"
    with pytest.raises(InputError) as caught:
        JUDGES.get("counter", "judge")
    assert f"{ours} and {theirs} have it" in str(caught.value)
    assert JUDGES.get("taker:Judge", "judge") is sys.modules["taker"].Judge
    assert JUDGES.get("ordered", "judge") is not None
