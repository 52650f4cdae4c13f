import re
from pathlib import Path

from valuedrift_mlflow.recipe import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_recipe_keys_is_the_models_own() -> None:
    """Renew it by pasting what ``table.markdown_table()`` returns."""
    assert table.markdown_table() in README


def test_every_file_the_readme_names_is_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    scripts = re.findall(r"python ((?:docs|benchmarks)/\w+\.py)", README)
    assert pictures
    assert scripts
    for name in [*pictures, *scripts]:
        assert (ROOT / name).is_file(), name


def test_the_two_commands_are_the_first_code() -> None:
    first = README.split("```")[1].strip().splitlines()
    assert len(first) == 2
    assert first[0].endswith("pip install -c constraints.txt -e . && mlflow run . --env-manager local")
    assert first[1].endswith("pip install -c constraints.txt -e '.[test]' && pytest")
