"""What all HTML reports share: figures with what stands for them, templates, and what a page may do.

A page is one file. It asks for nothing from outside, runs no script, and has one style, whose hash its
content security policy names: so what a model wrote can change neither what the page does nor how it looks.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from valuedrift_mlflow.report.svg import as_svg, is_wide
from valuedrift_mlflow.report.tables import NO_TABLE, Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

_DPI = 160
_TABLE_ROWS = 60  # a figure of more rows than these is downloaded as csv, not shown as a table


@dataclass(frozen=True, eq=False)
class Illustration:
    """A figure, and what stands for it where it is not seen: caption, what it shows in figures, its data."""

    figure: Figure
    caption: str
    says: str
    data: Table


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure as it was drawn: PNG and csv for the run, SVG for the page.

    Attributes:
        name: of its files.
        caption: what kind of figure it is.
        says: what it shows, in figures; the caption where nobody has said more.
        data: what is drawn; no row where nobody has given it.
        png: the picture.
    """

    name: str
    figure: Figure
    caption: str
    says: str
    data: Table
    png: bytes

    @property
    def csv(self) -> str:
        """The data; empty where nobody has given them."""
        return self.data.csv if self.data else ""

    @cached_property
    def svg(self) -> Markup:
        """The figure for a page. Drawn when it is asked for: a stage's figures are in no page."""
        from markupsafe import Markup

        return Markup(as_svg(self.figure, self.name, self.caption, self.says))  # all text in it is escaped

    @property
    def table(self) -> Table:
        """The data where they are few enough to be read in a page."""
        return self.data if len(self.data.rows) <= _TABLE_ROWS else NO_TABLE

    @property
    def wide(self) -> bool:
        """Whether a telephone scrolls it."""
        return is_wide(self.figure)

    @property
    def download(self) -> str:
        """The csv as an address that needs no server."""
        return f"data:text/csv;base64,{base64.b64encode(self.csv.encode()).decode()}"


def drawn(figures: Mapping[str, Figure | Illustration]) -> dict[str, Picture]:
    """Figures as pictures, and closed. To draw one takes longer than most else of a report: do it once."""
    return {name: _picture(name, own) for name, own in figures.items()}


def _picture(name: str, own: Figure | Illustration) -> Picture:
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not isinstance(own, Illustration):
        caption = name.replace("_", " ").capitalize() + "."
        own = Illustration(own, caption, caption, NO_TABLE)
    buffer = io.BytesIO()
    own.figure.set_dpi(_DPI)
    # `savefig` would draw it twice.
    FigureCanvasAgg(own.figure).print_png(buffer)
    # pyplot keeps every figure until then; a closed one can still be saved, as SVG or by `evaluate.log_evaluation`.
    plt.close(own.figure)
    return Picture(name, own.figure, own.caption, own.says, own.data, buffer.getvalue())


# No page may hold them (HTML, section 13.2.3.5), and a terminal that shows one would obey them.
_CONTROLS = dict.fromkeys([*range(9), 11, *range(14, 32), *range(127, 160)], "\ufffd")


def render(template: str, **values: object) -> str:
    """A template as HTML; everything that a model or a user wrote is escaped."""
    return _environment().get_template(template).render(**values).translate(_CONTROLS)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("valuedrift_mlflow.report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: f"{value:.3f}" if math.isfinite(value) else "undefined"
    style = loader.get_source(environment, "page.css")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.globals["page_style"] = Markup(style)  # ours, not a user's
    environment.globals["page_policy"] = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment
