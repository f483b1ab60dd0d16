"""The site of the documents: `make docs`. Sphinx reads this file; the pages are the project's own Markdown files.

What is listed in docs/README.md, under the headings it has there, is the navigation. A page that is not listed, and a
link or an anchor that leads nowhere, is a warning, and a warning fails the build. Nothing is fetched from elsewhere,
neither now nor by a reader's browser.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
INDEX, DECISIONS = "docs/README", "docs/decisions/README"

project = "polystore"
language = "en"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md"]
exclude_patterns = [".*", "build", "dist"]
suppress_warnings = ["misc.highlighting_failure"]  # only a matter of colours
myst_heading_anchors = 6
html_theme = "furo"
html_title = project
html_copy_source = False
html_search_language = "en-ko"
html_additional_pages = {"index": "index.html"}
templates_path = ["."]


def chapters(page: str, root: Path = ROOT) -> Iterator[tuple[str, list[str]]]:
    """The headings of an index page, and the pages that are linked below each."""
    text = (root / f"{page}.md").read_text(encoding="utf-8")
    for chapter in re.split(r"^#+ +", text, flags=re.MULTILINE)[1:]:
        links = re.findall(r"\]\(([^)\s#:]+)\.md\)", chapter)
        pages = [posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) for link in links]
        yield chapter.partition("\n")[0].strip(), [one for one in dict.fromkeys(pages) if one != root_doc]


def contents(page: str, root: Path = ROOT) -> str:
    """The navigation below a page, in the words of Sphinx."""
    if page == root_doc:
        return "".join(
            toctree([*([INDEX] if number == 0 else []), *pages], "" if number == 0 else title)
            for number, (title, pages) in enumerate(chapters(INDEX, root))
        )
    return "".join(toctree(pages) for _, pages in chapters(page, root)) if page == DECISIONS else ""


def toctree(pages: list[str], caption: str = "") -> str:
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return f"\n```{{toctree}}\n{options}\n" + "".join(f"{entry(one)}\n" for one in pages) + "```\n"


def entry(page: str) -> str:
    """A page is named by its title, but for the Korean README, whose title is that of the English one."""
    return f"한국어 </{page}>" if page == f"{root_doc}.ko" else f"/{page}"


class SearchEnglishAndKorean(SearchEnglish):
    """English words by their stems, as Sphinx does it; Korean by pairs of syllables, since particles are written
    without a space: "가을이" is found by "가을"."""

    lang = "en-ko"
    language_name = "English"  # names the function of the stems
    js_splitter_code = """
function splitQuery(query) {
  const words = query.match(/[가-힣]+|[\\p{Letter}\\p{Number}_]+?(?=[가-힣]|[^\\p{Letter}\\p{Number}_]|$)/gu) || [];
  return words.flatMap((word) => /[가-힣]{2}/.test(word)
    ? [...word].slice(1).map((syllable, i) => word[i] + syllable)
    : [word]);
}
"""

    def split(self, input: str) -> list[str]:
        found: list[str] = []
        for word in re.findall(r"[가-힣]+|\w+?(?=[가-힣]|\W|$)", input):
            pairs = len(word) > 1 and "가" <= word[0] <= "힣"
            found += [word[i : i + 2] for i in range(len(word) - 1)] if pairs else [word]
        return found


def setup(app: Sphinx) -> None:
    def add_contents(_: Any, page: str, source: list[str]) -> None:
        source[0] += contents(page, Path(app.srcdir))

    app.connect("source-read", add_contents)
    app.add_search_language(SearchEnglishAndKorean)
