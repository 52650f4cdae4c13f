import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) < 180


def test_every_file_the_readme_names_is_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert pictures
    for name in pictures:
        assert (ROOT / name).is_file(), name


def test_the_two_commands_are_the_first_code() -> None:
    first = README.split("```")[1].strip().splitlines()
    assert len(first) == 2
    assert first[0].endswith("pip install -c constraints.txt -e . && mlflow run . --env-manager local")
    assert first[1].endswith("pip install -c constraints.txt -e '.[test]' && pytest")
