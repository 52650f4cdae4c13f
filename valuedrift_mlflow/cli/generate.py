"""Write what can be told from elsewhere: the list of algorithms, MLproject, its scripts, tables of the documents.

Algorithms tell of themselves in their files, commands in ``cli.commands``, recipe keys in the settings' classes.

python -m valuedrift_mlflow.cli.generate           # in a checkout: writes
python -m valuedrift_mlflow.cli.generate --check   # names what is out of date, with exit code 1
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from valuedrift_mlflow.cli.commands import ENTRY_POINTS, Command
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.recipe.table import markdown_table

_MARKED = "<!-- {name}: made by valuedrift_mlflow.cli.generate -->\n"
_END = "<!-- end -->\n"


def files(root: Path) -> dict[Path, str]:
    """Every generated file with what it should hold; documents with their tables renewed.

    Raises:
        ValueError: a document lacks the marks of its table.
    """
    made = {root / "MLproject": mlproject(), root / "deploy" / "MLproject": mlproject(IMAGE)}
    made |= {root / "entrypoints" / f"{own.name}.py": script(own) for own in ENTRY_POINTS}
    for document, name, table in (
        ("commands", "entry points", commands_table()),
        ("ablate", "designs", designs_table()),
        ("recipes", "recipe keys", markdown_table()),
    ):
        path = root / "docs" / f"{document}.md"
        made[path] = _with_table(path, name, table)
    return made


def algorithms(folder: Path) -> str:
    """The list of the algorithms in the folder ``stages``: those that are listed in their order, then the new ones.

    Raises:
        InputError: an algorithm does not tell what its command does.
    """
    listed = json.loads((folder / "algorithms.json").read_text(encoding="utf-8"))
    places = {name: place for file in sorted(folder.glob("*.py")) for name, place in _declared(file)}
    order = [*(name for name in listed if name in places), *(name for name in places if name not in listed)]
    return json.dumps({name: _told(name, places[name]) for name in order}, indent=1) + "\n"


def _declared(file: Path) -> Iterator[tuple[str, str]]:
    """The classes of a file that have a line ``algorithm: Literal["name"]``; nothing is imported."""
    kinds = (node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    for kind in kinds:
        for line in kind.body:
            match line:
                case ast.AnnAssign(
                    target=ast.Name(id="algorithm"),
                    annotation=ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=str(name))),
                ):
                    yield name, f"valuedrift_mlflow.stages.{file.stem}:{kind.name}"


def _told(name: str, place: str) -> dict[str, object]:
    module, _, class_name = place.partition(":")
    kind = getattr(import_module(module), class_name)
    told = {"purpose": kind.purpose, "about": kind.about, "example": kind.example}
    lacking = [f"{class_name}.{key}" for key, text in told.items() if not text]
    if lacking:
        raise InputError(problem(f"algorithm {name}", f"no {', '.join(lacking)}", "a line of text each"))
    return {"class": place, **told, "flags": kind.flags}


def mlproject(image: str = "") -> str:
    """The file MLproject; with an ``image`` the one for containers, which hold the package and no checkout.

    Parameters are texts: MLflow checks no other type, and an empty one leaves the recipe's.
    """
    environment = f"docker_env:\n  image: {image}" if image else "python_env: python_env.yaml"
    lines = ["name: valuedrift", "", environment, "", "entry_points:"]
    for own in ENTRY_POINTS:
        parameters = {"recipe": own.recipe, "set": "", **{flag: own.defaults.get(flag, "") for flag in own.flags}}
        parameters["dry_run"] = ""
        flags = " ".join(f"--{name.replace('_', '-')} {{{name}}}" for name in parameters)
        lines += [f"  {own.name}:", "    parameters:"]
        lines += [f"      {name}: {{type: string, default: {text or QUOTED}}}" for name, text in parameters.items()]
        # As a module: a second checkout would else run the first one's code (MLflow reuses environments by content).
        module = f"valuedrift_mlflow.cli.container {own.name}" if image else f"entrypoints.{own.name}"
        lines.append(f'    command: "python -m {module} {flags}"')
    return "\n".join(lines) + "\n"


IMAGE = "registry.example/valuedrift"
QUOTED = '""'


def script(own: Command) -> str:
    """The script of an entry point."""
    examples = "\n".join(own.examples)
    return (
        f'"""{own.purpose}\n\n{examples}\n"""\n\n'
        "from valuedrift_mlflow.cli.main import entry_point\n\n"
        f'if __name__ == "__main__":\n    entry_point("{own.name}")\n'
    )


def commands_table() -> str:
    """The table of entry points."""
    rows = ["| entry point | does | parameters beside `recipe` and `set` |", "|---|---|---|"]
    rows += [f"| `{own.name}` | {own.about} | {', '.join(f'`{flag}`' for flag in own.flags)} |" for own in ENTRY_POINTS]
    return "\n".join(rows) + "\n"


def designs_table() -> str:
    """The table of designs."""
    rows = [f"| `{name}` | {about} |" for own in ENTRY_POINTS for name, about in own.choices.items()]
    return "\n".join(["| design | asks |", "|---|---|", *rows]) + "\n"


def _with_table(document: Path, name: str, table: str) -> str:
    text, start = document.read_text(encoding="utf-8"), _MARKED.format(name=name)
    if start not in text or _END not in text.partition(start)[2]:
        raise ValueError(f"{document.name}: no table between {start.strip()} and {_END.strip()}")
    # By a function: in a text re.sub takes a backslash for a reference.
    return re.sub(f"{re.escape(start)}.*?{re.escape(_END)}", lambda _: start + table + _END, text, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the files of the checkout in the working folder, or compare them."""
    root, check = Path.cwd(), "--check" in arguments
    stages = root / "valuedrift_mlflow" / "stages"
    list_of_algorithms = {stages / "algorithms.json": algorithms(stages)}
    stale = _stale(list_of_algorithms, check)
    if stale and not check:
        # The tables of this process are made from the old list.
        return subprocess.run([sys.executable, "-m", "valuedrift_mlflow.cli.generate"], check=False).returncode
    return int((_stale(files(root), check) or stale) and check)


def _stale(made: dict[Path, str], check: bool) -> bool:
    """Whether any of the files is not what it should be; unless it is only a check, they are after this."""
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"out of date: {path.name}" if check else f"written: {path.name}")
        if not check:
            path.write_text(made[path], encoding="utf-8")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
