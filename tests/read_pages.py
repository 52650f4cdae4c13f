"""A report as a browser reads it: elements, headings, tables, figures; and what every page has to keep to."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

from mlflow.entities import Run

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, white space as a browser shows it."""
        whole = "".join(child if isinstance(child, str) else f" {child.text} " for child in self.children)
        return re.sub(r"\s+", " ", whole).strip()

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Every element below it of this tag and with these attributes, in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                fits = all(child.attributes.get(key) == value for key, value in attributes.items())
                found += [child] if fits and tag in ("", child.tag) else []
                found += child.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(html: str) -> Element:
    """The page, whose every element is closed where it has to be."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def table_of(element: Element) -> list[list[str]]:
    """The header and the rows of a table."""
    return [[cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in element.all("tr")]


def keeps_to_what_pages_promise(html: str) -> Element:
    """Assert what holds for every page: it asks for nothing, runs nothing, can be read by ear; the page is returned."""
    page = read_page(html)
    _asks_for_nothing(page, html)
    _is_in_order(page)
    for figure in page.all("figure"):
        _says_what_it_shows(figure)
    return page


def _asks_for_nothing(page: Element, html: str) -> None:
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    [style] = page.all("style")
    text = "".join(child for child in style.children if isinstance(child, str))
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "http" not in html.replace("http-equiv", "") and "//" not in text and "url(" not in text
    for element in page.all():
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "form", "base", "foreignobject")
        for key, value in element.attributes.items():
            assert not key.startswith("on") and key not in ("style", "srcset"), (element.tag, key)
            if key in ("href", "src"):
                assert value.startswith(("#", "data:text/csv;base64,", "data:image/png;base64,")), value


def _is_in_order(page: Element) -> None:
    assert [element.attributes["lang"] for element in page.all("html")] == ["en"]
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("head")[0].all("title")) == 1
    levels = [int(element.tag[1]) for element in page.all() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1 and all(later <= earlier + 1 for earlier, later in pairwise(levels))
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.all():
        referred = re.findall(r"url\(#([^)]+)\)", " ".join(element.attributes.values()))
        referred += element.attributes.get("aria-labelledby", "").split()
        referred += [element.attributes["href"][1:]] if element.attributes.get("href", "").startswith("#") else []
        assert set(referred) <= set(ids), (element.tag, referred)
    for element in page.all("table"):
        header, *rows = table_of(element)
        assert header and all(len(row) == len(header) for row in rows)
        assert all(cell.attributes.get("scope") in ("col", "row") for cell in element.all("th"))


def _says_what_it_shows(figure: Element) -> None:
    [svg] = figure.all("svg")
    assert svg.attributes["role"] == "img"
    [title], [says] = svg.all("title"), svg.all("desc")
    assert title.text in figure.all("figcaption")[0].text
    assert re.search(r"\d", says.text), says.text  # in figures
    links = [link for link in figure.all("a") if "download" in link.attributes]
    for table in figure.all("table"):
        assert table_of(table) == data_of(links[0])


def data_of(link: Element) -> list[list[str]]:
    """The rows of the csv that a link carries."""
    assert link.attributes["download"].endswith(".csv")
    text = base64.b64decode(link.attributes["href"].partition("base64,")[2]).decode()
    return list(csv.reader(io.StringIO(text)))


def described(run: Run) -> str:
    """The description of a run, without the spaces that widen the cells of its tables."""
    return str(run.data.tags["mlflow.note.content"]).replace("&ensp; |", " |")
