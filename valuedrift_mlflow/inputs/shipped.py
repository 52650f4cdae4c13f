"""Folders of YAML files that come with the project: recipes, designs."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """``entrypoints/NAME`` of the checkout, or the copy inside an installed package."""
    package = Path(__file__).parents[1]
    # The checkout first: whoever edits a file there must get that one.
    checkout = package.parent / "entrypoints" / name
    return checkout if checkout.is_dir() else package / name


def told_of(name: str) -> dict[str, str]:
    """What each YAML file of a folder says of itself in its line ``about:``, by name.

    The line alone is read, not the YAML: a command shows its help at once.
    """
    told: dict[str, str] = {}
    for file in sorted(shipped_folder(name).glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        about = next((line for line in lines if line.startswith("about:")), "about:")
        told[file.stem] = about.removeprefix("about:").strip()
    return told
