"""The commands as MLflow starts them in a container.

For Kubernetes MLflow quotes every argument as for a shell, and starts none: an empty value arrives as two quotes.
"""

from __future__ import annotations

import shlex
import sys

from valuedrift_mlflow.cli.main import main


def unquoted(argument: str) -> str:
    """An argument without the quotes that a shell would have taken off; any other as it is.

    >>> unquoted("''"), unquoted("'samples=2 seed=7'"), unquoted("samples=2 seed=7"), unquoted("it's")
    ('', 'samples=2 seed=7', 'samples=2 seed=7', "it's")
    """
    try:
        parts = shlex.split(argument)
    except ValueError:  # a quote without its end
        return argument
    return parts[0] if len(parts) == 1 and shlex.quote(parts[0]) == argument else argument


if __name__ == "__main__":
    main([unquoted(argument) for argument in sys.argv[1:]])
