"""The pytest plugin as an application's tests meet it: pytest runs for real, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

MODELS = """
from dataclasses import dataclass
from typing import Annotated
from polystore import Embedding, FullText, entity

@entity()
@dataclass(kw_only=True)
class Note:
    id: str
    text: Annotated[str, FullText()]

@entity(data_type="session")
@dataclass(kw_only=True)
class Session:
    id: str

@entity()
@dataclass(kw_only=True)
class Picture:
    id: str
    title: Annotated[str, Embedding()]
"""
STEPS = """
from models import Note
from polystore import Unavailable

async def outage(polystore, fail_store):
    async with polystore([Note]) as hda:
        notes = hda.collection(Note)
        with fail_store("full_text"):
            result = await notes.put(Note(id="a", text="written meanwhile"))
            assert result.stores["full_text"] == "pending"
            try:
                await notes.search("written")
            except Unavailable as e:
                assert e.store == "full_text"
            else:
                raise AssertionError("it answered")
        assert [hit.value.id for hit in await notes.search("written", after=result.token)] == ["a"]
"""
PLAIN = """
import asyncio
import pytest
from models import Note
from polystore import ConfigurationError, OutcomeUnknown
from steps import outage

def test_outage(polystore, fail_store):
    asyncio.run(outage(polystore, fail_store))

def test_ambiguous(polystore, fail_store):
    async def main():
        async with polystore([Note]) as hda:
            notes = hda.collection(Note)
            failure = fail_store("home", when="after")
            with pytest.raises(OutcomeUnknown) as raised:
                await notes.create(Note(id="a", text="answered to nobody"))
            assert (raised.value.store, raised.value.operation) == ("home", "commit")
            with pytest.raises(OutcomeUnknown):
                await notes.count()
            failure.release()
            assert await notes.exists("a")
    asyncio.run(main())

def test_nothing_is_read_past_a_failure(polystore, fail_store):
    async def main():
        async with polystore([Note]) as hda:
            await hda.collection(Note).put(Note(id="a", text="here"))
            fail_store("home")
            with pytest.raises(Exception, match="home get key 'a': "):
                await hda.collection(Note).get("a")
    asyncio.run(main())

def test_starts_again_on_its_data_and_is_released_at_the_end(polystore, fail_store):
    async def main():
        async with polystore([Note]) as hda:
            await hda.collection(Note).put(Note(id="a", text="kept"))
            fail_store("full_text")
        async with polystore([Note]) as hda:
            assert [hit.value.id for hit in await hda.collection(Note).search("kept")] == ["a"]
    asyncio.run(main())

def test_data_is_its_own(polystore):
    async def main():
        async with polystore([Note]) as hda:
            assert await hda.collection(Note).count() == 0
    asyncio.run(main())

def test_names_of_stores_are_those_of_the_configuration(polystore, fail_store):
    stores = {"main": {"url": "memory:", "roles": ["home"]}, "search": {"url": "memory:", "roles": ["full_text"]}}
    async def main():
        async with polystore([Note], {"stores": stores}) as hda:
            with pytest.raises(ConfigurationError, match="'serach' is not known, did you mean 'search'.*main, search"):
                fail_store("serach")
            with fail_store("search"):
                assert (await hda.collection(Note).put(Note(id="a", text="x"))).stores["search"] == "pending"
    asyncio.run(main())
"""
STORES = """
import asyncio
from models import Note, Session
import pytest
from polystore import Unavailable

def test_every_store_of_the_profile_can_fail(polystore, fail_store):
    async def main():
        async with polystore([Note, Session]) as hda:
            assert set(hda.stores) == {"home", "full_text", "vector", "graph", "facts", "state", "files"}
            for name in hda.stores:
                fail_store(name)
            for attempt in (hda.state(Session).get("s"), hda.collection(Note).count()):
                with pytest.raises(Unavailable, match="the test lets this store fail"):
                    await attempt
    asyncio.run(main())
"""
PYTEST_ASYNCIO = """
import pytest
import pytest_asyncio
from models import Note
from steps import outage

@pytest_asyncio.fixture
async def hda(polystore):
    async with polystore([Note]) as hda:
        yield hda

@pytest.mark.asyncio
async def test_outage(polystore, fail_store):
    await outage(polystore, fail_store)

@pytest.mark.asyncio
async def test_fixture(hda):
    await hda.collection(Note).put(Note(id="a", text="x"))
"""
ANYIO = """
import pytest
from models import Note
from steps import outage

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def hda(polystore):
    async with polystore([Note]) as hda:
        yield hda

async def test_outage(polystore, fail_store):
    await outage(polystore, fail_store)

async def test_fixture(hda):
    await hda.collection(Note).put(Note(id="a", text="x"))
"""
BAD = """
import asyncio
import sqlite3
from models import Note, Picture

class Refuses:
    name, dimension, batch_max, chars_max = "refuses", 4, 8, 100

    async def embed(self, texts, purpose):
        return [[float("nan") if text == "refused" else 1.0] * 4 for text in texts]

def spoil(polystore, tmp_path, **options):
    async def main():
        async with polystore([Note], **options) as hda:
            await hda.collection(Note).put_many([Note(id=f"n{i:02}", text="x") for i in range(12)])
            await hda.settle()
            with sqlite3.connect(tmp_path / "polystore/full_text.db") as db:
                db.execute("DELETE FROM note")
            db.close()
    asyncio.run(main())

def test_leaves_differences(polystore, tmp_path):
    spoil(polystore, tmp_path)

def test_leaves_differences_on_purpose(polystore, tmp_path):
    spoil(polystore, tmp_path, verify=False)

def test_leaves_a_dead_letter(polystore):
    async def main():
        async with polystore([Picture], embedders={"default": Refuses()}) as hda:
            await hda.tenant("acme").collection(Picture).put(Picture(id="p1", title="refused"))
    asyncio.run(main())

def test_fails_by_itself(polystore):
    async def main():
        async with polystore([Note]) as hda:
            raise LookupError("the test's own error")
    asyncio.run(main())
"""


def run(folder: Path, tests: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """pytest on an application's tests, name -> text of the file."""
    for file, content in {"models": MODELS, "steps": STEPS, **tests}.items():
        (folder / f"{file}.py").write_text(content, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    command += [f"{name}.py" for name in tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_an_application_is_opened_fails_and_is_verified_in_the_loop_of_its_test(tmp_path: Path) -> None:
    files = {"test_plain": PLAIN, "test_stores": STORES, "test_asyncio": PYTEST_ASYNCIO, "test_anyio": ANYIO}
    done = run(tmp_path, files)
    assert done.returncode == 0, done.stdout
    assert "11 passed" in done.stdout


def test_a_test_that_leaves_differences_fails_in_words(tmp_path: Path) -> None:
    said = run(tmp_path, {"test_bad": BAD}, "--tb=short").stdout
    assert "3 failed, 1 passed" in said
    assert "polystore: the test leaves copies that differ from their home:" in said
    assert "  full_text: note 'n00': missing, version None there, " in said
    assert "  and 2 more" in said
    assert "LookupError: the test's own error" in said
    assert "picture 'p1' of tenant 'acme' " in said
    assert re.search("embed:.*: picture 'p1' of tenant 'acme' is a dead letter: .*made a vector that cannot", said)


def test_the_plugin_costs_nothing_until_a_test_asks(tmp_path: Path) -> None:
    text = """
import sys

def test_nothing_is_opened():
    heavy = {"sqlalchemy", "sqlite3", "numpy", "polystore.architecture", "polystore.testing.application"}
    assert "polystore.testing.plugin" in sys.modules
    assert not heavy & set(sys.modules)
"""
    done = run(tmp_path, {"test_light": text})
    assert done.returncode == 0, done.stdout
    script = "import sys, polystore; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
