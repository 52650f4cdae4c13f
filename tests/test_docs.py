"""What the documents say of the repository is so: the files that they name, and the order of the rooms."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "valuedrift_mlflow"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
OURS = {".py", ".md", ".toml", ".j2"}  # what has another ending may be a file that a user has or a run writes
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ANY = re.compile("NAME|ROOM|FILE")  # stands for any name


def named_files(document: str) -> list[str]:
    """What a text has in backticks that looks like a file or a folder of the repository."""
    text = FENCED.sub("", (ROOT / document).read_text(encoding="utf-8"))
    folders = {path.name for root in (ROOT, PACKAGE) for path in root.iterdir() if path.is_dir()} - LEFT | {"examples"}
    words = [word for word in re.findall(r"`([^`\n]+)`", text) if PATH.fullmatch(word) and not ANY.search(word)]
    return [
        word
        for word in words
        if Path(word).suffix in OURS
        or (word.split("/")[0] in folders and (word.endswith("/") or Path(word).suffix in (".yaml", ".csv", ".json")))
    ]


LEFT = {".valuedrift", "mlruns", "mlartifacts", "synthesized", "build", "dist"}  # by runs and builds


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(document: str) -> None:
    missing = [name for name in named_files(document) if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    if not (ROOT / "examples").is_dir():
        missing = [name for name in missing if not name.startswith("examples/")]
    assert not missing


def test_documents_name_files() -> None:
    assert sum(len(named_files(document)) for document in DOCUMENTS) > 100


def test_every_script_that_a_document_names_is_there() -> None:
    for document in DOCUMENTS:
        for name in re.findall(r"python ((?:docs|benchmarks|examples)/\w+\.py)", (ROOT / document).read_text("utf-8")):
            assert (ROOT / name).is_file(), (document, name)


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert re.findall(r": (\w+\.md)$", menu, re.MULTILINE)
    assert {f"docs/{name}" for name in re.findall(r": (\w+\.md)$", menu, re.MULTILINE)} == set(DOCUMENTS[2:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in link and not link.startswith("#"):
            assert ((ROOT / document).parent / link.partition("#")[0]).exists(), link


def test_the_rooms_of_the_architecture_are_the_layers_of_the_contract() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("| room |")[2].partition("\n\n")[0]
    rooms = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [layers] = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    assert rooms == [re.findall(r"\w+", layer) for layer in layers["layers"]]


def test_the_fast_tests_of_the_guide_are_there() -> None:
    fast = [
        line for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines() if "tests/inputs" in line
    ]
    assert fast
    for path in re.findall(r"tests/[\w/.]+", " ".join(fast)):
        assert (ROOT / path).exists(), path
