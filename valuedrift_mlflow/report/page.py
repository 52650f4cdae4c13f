"""What all HTML reports share: figures inside the page, templates."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> str:
    """A figure as PNG in base64, for a page that needs no other file."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    # pyplot keeps every figure until then; a closed one can still be saved, as `evaluate.log_evaluation` does.
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def render(template: str, **values: object) -> str:
    """A template as HTML; everything that a model wrote is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("valuedrift_mlflow.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}" if math.isfinite(value) else "undefined"
    return environment.get_template(template).render(**values)
