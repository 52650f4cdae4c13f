"""The command line: one parser for `valuedrift` and the scripts of the entry points; exit code 2 for bad input."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version

from valuedrift_mlflow.cli.commands import COMMANDS, Command, command

_DRY_RUN = "check everything that can be without weights and show the plan: steps, tokens, checkpoints, bytes, memory"

_PYFUNC = "let MLflow load models that are more than weights, which runs code that they bring"


def main(arguments: Sequence[str] | None = None) -> None:
    """`valuedrift COMMAND [flags]`, the same commands as the entry points of MLproject.

    Args:
        arguments: those of the command line where they are not given.

    Raises:
        SystemExit: with code 2 for bad input, after one line for each problem, and for a server that stays silent.
    """
    parser = argparse.ArgumentParser(prog="valuedrift", description="Trace how post-training moves a model's values.")
    parser.add_argument("--version", action="version", version=f"valuedrift-mlflow {version('valuedrift-mlflow')}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for own in COMMANDS:
        # With underscores too, as MLproject has them.
        aliases = [own.name] if own.name != own.spoken else []
        _add_flags(
            parsers.add_parser(
                own.spoken,
                aliases=aliases,
                help=own.purpose,
                description=own.purpose,
                epilog=_examples(own),
                # Else argparse would run the examples together.
                formatter_class=argparse.RawDescriptionHelpFormatter,
            ),
            own,
        )
    parsed = parser.parse_args(arguments)
    _run(command(parsed.command), parsed)


def entry_point(name: str, arguments: Sequence[str] | None = None) -> None:
    """One command under a script of its own, as MLproject calls it; see `main`."""
    own = command(name)
    parser = argparse.ArgumentParser(
        description=own.purpose, epilog=_examples(own), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_flags(parser, own)
    _run(own, parser.parse_args(arguments))


def _examples(own: Command) -> str:
    lines = ["examples:", *(f"  {line}" for line in own.examples)]
    width = max(map(len, own.choices), default=0)
    chosen = [f"  {name:{width}}  {about}" for name, about in own.choices.items()]
    return "\n".join([*lines, *([f"\n{own.chosen_by}s:", *chosen] if chosen else [])])


def _add_flags(parser: argparse.ArgumentParser, own: Command) -> None:
    for name, meaning in own.subject.items():
        parser.add_argument(name, metavar=name.upper(), help=meaning)
    parser.add_argument("--recipe", default=own.recipe, help="name in entrypoints/recipes, or a YAML file")
    parser.add_argument("--set", default="", help='settings over the recipe\'s: "dotted.key=value ..."')
    for flag, meaning in own.flags.items():
        parser.add_argument(f"--{flag}", default=own.defaults.get(flag, ""), help=meaning)
    # With a value or without: `mlflow run` gives every flag one.
    for flag, meaning in (("--dry-run", _DRY_RUN), ("--allow-pyfunc-code", _PYFUNC)):
        parser.add_argument(flag, f"--{flag[2:].replace('-', '_')}", nargs="?", const="true", default="", help=meaning)


def _run(own: Command, arguments: argparse.Namespace) -> None:
    """Load the recipe and do the job."""
    # Here and not above: --help needs none of it.
    from valuedrift_mlflow import tracking
    from valuedrift_mlflow.cli import jobs
    from valuedrift_mlflow.inputs import interrupts, processes, scratch
    from valuedrift_mlflow.inputs.errors import InputError, Unanswered, exit_on_bad_input, traced_safely
    from valuedrift_mlflow.inputs.modules import NotImported, only_looked_up

    # Before MLflow and the hub's library are imported, which read these settings then and never again.
    tracking.work_offline()
    warnings.filterwarnings("ignore", category=FutureWarning)
    # MLflow wants one of every model; the signature says what there is to say.
    warnings.filterwarnings("ignore", ".*input example was not provided")
    scratch.keep_together()
    sys.excepthook = traced_safely
    # Around the recipe too: what is wrong with it is told in the same way as what is wrong with a flag.
    with exit_on_bad_input(), interrupts.minded(ends=True):
        processes.end_with_mlflow_run()
        processes.keep_freed_memory()
        try:
            arguments.dry_run = _yes("dry_run", arguments.dry_run)
            # A dry run imports nothing of the user's, and leaves nothing in a store.
            looked: AbstractContextManager[list[str]] = only_looked_up() if arguments.dry_run else nullcontext([])
            with looked as own_parts:
                recipe = jobs.recipe_of(own, arguments)
                recipe.allow_pyfunc_code |= _yes("allow_pyfunc_code", arguments.allow_pyfunc_code)
                if not arguments.dry_run or bool(getattr(arguments, "resume", "")):
                    tracking.check_store()
                jobs.JOBS[own.job](own, recipe, arguments)
                for line in own_parts:
                    print(line)
        except NotImported as part:
            print(f"Dry run: {part.said}; what hangs on it is not known before")
        except (InputError, Unanswered) as error:
            # `mlflow run` has opened a run already, which would else be FAILED without a reason.
            tracking.describe_refusal(error)
            raise
        except Exception as error:
            refused = tracking.refusal(error)
            if refused is None:
                raise
            raise refused from None


def _yes(flag: str, text: str) -> bool:
    """What the value of a flag means; ``mlflow run`` passes a value for each."""
    from valuedrift_mlflow.inputs.errors import InputError, problem

    known = {"true": True, "yes": True, "1": True, "": False, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise InputError(problem(flag, text, "true or false"))
    return known[text.lower()]


if __name__ == "__main__":
    main()
