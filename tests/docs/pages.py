"""The documents of this project, read as a reader's tools read them: blocks, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: where its first line stands in the page, from 1."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks; their lines are left empty."""
    text = page.read_text(encoding="utf-8")
    return _FENCE.sub(lambda m: "\n" * m[0].count("\n"), text)


def links(page: Path) -> Iterator[str]:
    """The targets of all links of a page."""
    for found in _LINK.finditer(prose(page)):
        yield found[1]


def anchors(page: Path) -> set[str]:
    """What `#...` can lead to on a page: GitHub's names of the headings."""
    out: set[str] = set()
    for found in _HEADING.finditer(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1]).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in out)
        out.add(f"{slug}-{number}" if number else slug)
    return out
