"""Write what repeats the tables of commands and recipe keys: MLproject, its scripts, two tables of the README.

python -m valuedrift_mlflow.cli.generate           # in a checkout: writes
python -m valuedrift_mlflow.cli.generate --check   # names what is out of date, with exit code 1
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from valuedrift_mlflow.cli.commands import ENTRY_POINTS, Command
from valuedrift_mlflow.recipe.table import markdown_table

_MARKED = "<!-- {name}: made by valuedrift_mlflow.cli.generate -->\n"
_END = "<!-- end -->\n"


def files(root: Path) -> dict[Path, str]:
    """Every generated file with what it should hold; the README with its tables renewed.

    Raises:
        ValueError: the README lacks the marks of a table.
    """
    made = {root / "MLproject": mlproject()}
    made |= {root / "entrypoints" / f"{own.name}.py": script(own) for own in ENTRY_POINTS}
    readme = (root / "README.md").read_text(encoding="utf-8")
    for name, table in (("entry points", commands_table()), ("recipe keys", markdown_table())):
        readme = _with_table(readme, name, table)
    return made | {root / "README.md": readme}


def mlproject() -> str:
    """The file MLproject. Parameters are texts: MLflow checks no other type, and an empty one leaves the recipe's."""
    lines = ["name: valuedrift", "", "python_env: python_env.yaml", "", "entry_points:"]
    for own in ENTRY_POINTS:
        parameters = {"recipe": own.recipe, "set": "", **{flag: own.defaults.get(flag, "") for flag in own.flags}}
        parameters["dry_run"] = ""
        flags = " ".join(f"--{name.replace('_', '-')} {{{name}}}" for name in parameters)
        lines += [f"  {own.name}:", "    parameters:"]
        lines += [f"      {name}: {{type: string, default: {text or QUOTED}}}" for name, text in parameters.items()]
        # As a module: a second checkout would else run the first one's code (MLflow reuses environments by content).
        lines.append(f'    command: "python -m entrypoints.{own.name} {flags}"')
    return "\n".join(lines) + "\n"


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
    """The README's table of entry points."""
    rows = ["| entry point | does | parameters beside `recipe` and `set` |", "|---|---|---|"]
    rows += [f"| `{own.name}` | {own.about} | {', '.join(f'`{flag}`' for flag in own.flags)} |" for own in ENTRY_POINTS]
    return "\n".join(rows) + "\n"


def _with_table(readme: str, name: str, table: str) -> str:
    start = _MARKED.format(name=name)
    if start not in readme or _END not in readme.partition(start)[2]:
        raise ValueError(f"README.md: no table between {start.strip()} and {_END.strip()}")
    return re.sub(f"{re.escape(start)}.*?{re.escape(_END)}", lambda _: start + table + _END, readme, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the files of the checkout in the working folder, or compare them."""
    made = files(Path.cwd())
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"out of date: {path.name}" if "--check" in arguments else f"written: {path.name}")
        if "--check" not in arguments:
            path.write_text(made[path], encoding="utf-8")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
