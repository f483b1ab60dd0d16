"""What is written about the project fits the project: links, names, words, tests that are referred to."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import polystore
from docs.generate import PAGE, page
from polystore import errors
from polystore.cli.app import app
from polystore.config import ROLES, Pins, StoreConfig
from polystore.embedders import EmbedderConfig
from tests.docs.pages import NAMES, PAGES, ROOT, anchors, blocks, links, prose

_TEST = re.compile(r"`((?:tests|polystore)/[\w/]+\.py)::(\w+)`")
_PATH = re.compile(r"`((?:polystore|adapters|tests|examples|docs|benchmarks)/[\w./-]*)`")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name}: {link}"
        assert target.is_relative_to(ROOT), f"{name}: {link} leads out of the project"
        if anchor:
            assert anchor in anchors(target), f"{name}: {link}; there are {', '.join(sorted(anchors(target)))}"


@pytest.mark.parametrize("name", NAMES)
def test_files_and_tests_that_a_page_names_exist(name: str) -> None:
    text = prose(ROOT / name)
    for path, function in _TEST.findall(text):
        assert (ROOT / path).is_file(), f"{name}: {path}"
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{name}: {path}::{function}"
    for path in _PATH.findall(text):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_every_promise_names_a_test_that_shows_it() -> None:
    text = (ROOT / "docs/explanation/guarantees.md").read_text(encoding="utf-8")
    promises = re.split(r"^### (G\d+)\. ", text.partition("## What errors mean")[0], flags=re.MULTILINE)[1:]
    assert promises[::2] == [f"G{n}" for n in range(1, 12)]
    for number, promise in zip(promises[::2], promises[1::2], strict=True):
        assert _TEST.search(promise) or "There is no cache" in promise, number


def test_every_page_is_in_an_index() -> None:
    listed = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links(ROOT / "docs/README.md")}
    decisions = ROOT / "docs/decisions"
    listed |= {(decisions / link).resolve() for link in links(decisions / "README.md")}
    assert [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in listed] == [
        ROOT / "docs/README.md"
    ]


def _titles(page: Path) -> list[int]:
    return [len(found) for found in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


@pytest.mark.parametrize("name", ["README", "docs/tutorial"])
def test_both_languages_say_the_same(name: str) -> None:
    """The same chapters in the same order, and the same examples but for their comments."""
    english, korean = ROOT / f"{name}.md", ROOT / f"{name}.ko.md"
    assert _titles(korean) == _titles(english)
    code = [[(b.kind, re.sub(r" *#.*", "", b.text)) for b in blocks(page)] for page in (english, korean)]
    assert code[1] == code[0]
    assert len(re.findall(r"^- ", prose(korean), re.MULTILINE)) == len(re.findall(r"^- ", prose(english), re.MULTILINE))


# -- words --------------------------------------------------------------------------------------------------------

BANNED = re.compile(r"\b(backend|provider|connector|engine|sink)s?\b", re.IGNORECASE)
"""Words that elsewhere mean what is called adapter, store, repository, driver or copy here."""
QUOTED: set[str] = set()
"""Sentences that may hold such a word, because somebody else says it."""


def _sentences(text: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.:])\s+|\n\n", text) if BANNED.search(one)]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_uses_no_other_word_for_what_has_one(name: str) -> None:
    assert [one for one in _sentences((ROOT / name).read_text(encoding="utf-8")) if one not in QUOTED] == []


def test_docstrings_use_no_other_word_for_what_has_one() -> None:
    found: list[str] = []
    for path in [*ROOT.glob("polystore/**/*.py"), *ROOT.glob("adapters/**/*.py"), *ROOT.glob("examples/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found += [f"{path.relative_to(ROOT)}: {one}" for one in _sentences(ast.get_docstring(node) or "")]
    assert [one for one in found if one.partition(": ")[2] not in QUOTED] == []


# -- reference ----------------------------------------------------------------------------------------------------


def test_every_public_name_is_documented_and_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "the docstrings have changed: python docs/generate.py"
    for name in polystore.__all__:
        assert re.search(rf"### {name}$|\[`{name}`\]", page(), re.MULTILINE), name


def _errors() -> dict[str, type[polystore.PolystoreError]]:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, polystore.PolystoreError)}


def test_the_page_of_errors_has_every_error_where_it_stands_in_the_tree() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    tree = next(block.text for block in blocks(ROOT / "docs/reference/errors.md"))
    assert tree == textwrap.dedent((errors.__doc__ or "").split("\n\n")[1]) + "\n"
    assert re.findall(r"^\| `(\w+)` \| (yes|no) \|", text, re.MULTILINE) == [
        (name, "yes" if value.retryable else "no") for name, value in _errors().items() if name != "PolystoreError"
    ]
    parents: list[str] = []
    for line in tree.splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)", line)
        assert found is not None
        depth = len(found[1]) // 4
        parents[depth:] = [found[2]]
        if depth:
            assert _errors()[found[2]].__bases__ == (_errors()[parents[depth - 1]],), found[2]
    assert set(re.findall(r"^[│├└─ ]*(\w+)", tree, re.MULTILINE)) == set(_errors())


def test_the_reference_names_every_command_and_every_setting() -> None:
    commands = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        assert f"## polystore {name.rstrip('_')}\n" in commands, name
    settings = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    for struct in (StoreConfig, EmbedderConfig):
        for field in struct.__struct_fields__:
            assert f"| `{field}` |" in settings, field
    for name in (*ROLES, *Pins.__struct_fields__):
        assert f"`{name}`" in settings, name
