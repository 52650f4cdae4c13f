"""Matplotlib's figures as SVG that can stand in a page: small, accessible, the same each time, without styles.

A page that allows no style but its own (`page`) would drop matplotlib's ``style="..."``, so these become attributes.
Texts stay texts: they can be read, searched and copied, and take a tenth of the room that outlines do.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# DejaVu Sans comes with matplotlib, not with readers' machines: what stands for it is no wider.
_FONTS = "DejaVu Sans, Verdana, Segoe UI, Helvetica, Arial, sans-serif"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"(?:(?P<words>[a-z 0-9]*?) )?(?P<size>[\d.]+)px .*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
_PLACES = ("d", "x", "y", "width", "height", "points")  # attributes that are places on the drawing
_SCREEN = 4 / 3  # pixels of a browser in a point
_WIDE = 6.0  # inches: on a telephone, what is wider is scrolled and not made smaller


def as_svg(figure: Figure, name: str, caption: str, says: str) -> str:
    """A figure as an element ``svg`` for a page, with its caption as title and in words what it shows.

    Args:
        figure: may be closed.
        name: of the figure in its page; ids begin with it.
        caption: what kind of figure it is.
        says: what it shows, in figures.
    """
    import matplotlib

    text = io.StringIO()
    # A salt of our own: without one, ids are random and no two pages are the same.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(text.getvalue())
    _strip(root)
    _rename_ids(root, name)
    _present(root, figure, name, caption, says)
    return ElementTree.tostring(root, encoding="unicode")


def is_wide(figure: Figure) -> bool:
    """Whether a figure is too wide to be made as small as a telephone."""
    return bool(figure.get_size_inches()[0] > _WIDE)


def _strip(element: ElementTree.Element) -> None:
    """Take out namespaces, metadata, styles and digits that nobody sees."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        kind = child.tag.rpartition("}")[2]
        if kind in ("metadata", "style"):
            element.remove(child)
        else:
            _strip(child)
    given = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    given |= _attributes(given.pop("style", ""))
    for key in _PLACES:
        if key in given:
            given[key] = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", given[key]).replace("\n", "")
    element.attrib.clear()
    element.attrib.update(given)
    if element.tag != "text" and element.text and not element.text.strip():
        element.text = None
    element.tail = None


def _attributes(style: str) -> dict[str, str]:
    """What a style says, as attributes that mean the same."""
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (text.strip() for text in part.partition(":"))
        font = _FONT.fullmatch(value) if key == "font" else None
        if font is None:
            given[key] = value
            continue
        given |= {"font-size": font["size"], "font-family": _FONTS}
        if "bold" in (font["words"] or "") or "700" in (font["words"] or ""):
            given["font-weight"] = "bold"
    return given


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Keep the ids that something refers to, under names that no other figure of the page has."""
    referred = {
        found[1] or found[2]
        for element in root.iter()
        for value in element.attrib.values()
        if (found := _REFERENCE.search(value))
    }
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in referred:
            element.set("id", f"{name}-{own}")
        for key, value in element.attrib.items():
            found = _REFERENCE.search(value)
            if found and found[1]:
                element.set(key, f"url(#{name}-{found[1]})")
            elif found and found[2] and key == "href":
                element.set(key, f"#{name}-{found[2]}")


def _present(root: ElementTree.Element, figure: Figure, name: str, caption: str, says: str) -> None:
    """Say what the figure is to those who do not see it, and how large it is to those who do."""
    width, height = (round(72 * _SCREEN * inches) for inches in figure.get_size_inches())
    box = root.get("viewBox", f"0 0 {width} {height}")
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": box,
            "width": str(width),
            "height": str(height),
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-says",
            # What matplotlib's own style said of all.
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
        }
    )
    if is_wide(figure):
        root.set("class", "wide")
    for place, (kind, text, suffix) in enumerate((("title", caption, "title"), ("desc", says, "says"))):
        element = ElementTree.Element(kind, {"id": f"{name}-{suffix}"})
        element.text = text
        root.insert(place, element)
