"""What all HTML reports share: figures inside the page, templates."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Figures as PNG, and closed. To draw one takes longer than most else of a report: do it once for all places."""
    return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    # pyplot keeps every figure until then; a closed one can still be saved, as `evaluate.log_evaluation` does.
    plt.close(figure)
    return buffer.getvalue()


def inline(picture: bytes) -> str:
    """A picture in base64, for a page that needs no other file."""
    return base64.b64encode(picture).decode()


def render(template: str, **values: object) -> str:
    """A template as HTML; everything that a model wrote is escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("valuedrift_mlflow.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}" if math.isfinite(value) else "undefined"
    return environment.get_template(template).render(**values)
