"""Row 21: what the sample agent remembers of a conversation, in all stores of `compose/polystore.toml`, against the
same by hand. Needs the servers of `make up`. `--input FILE` is a conversation of one's own.

Ours is all that `make demo PROFILE=full` does to learn it, until every store holds everything. By hand means: what came
of that, by each driver's own bulk call, all stores at the same time: no topics looked for, no vectors computed (they
are there), no versions, nothing that goes on after a crash.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import struct
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import obstore
from polystore_adapters.influxdb.options import read_options as influxdb_options
from polystore_adapters.s3.options import read_options as s3_options

from benchmarks import bulk
from benchmarks.data import sentences
from benchmarks.measure import Ratio, at_least
from benchmarks.servers import url_of
from polystore import HybridDataArchitecture
from polystore.testing.places import places

TARGET = 0.6
ROUNDS = 3
LINES = 4_000
EXAMPLES = Path(__file__).parents[1] / "examples"
STORES = {
    "main": "postgresql",
    "live": "redis",
    "documents": "mongodb",
    "search": "elasticsearch",
    "graph": "neo4j",
    "vectors": "chromadb",
    "series": "influxdb",
    "files": "minio",
}
EDGES = {"said_by": "SAID_BY", "reply_to": "REPLY_TO", "about": "ABOUT"}
INPUT: Path | None = None
TOGETHER = 50


class Learned(msgspec.Struct):
    """What is to be in the stores."""

    messages: Sequence[Mapping[str, Any]]
    vectors: Sequence[Mapping[str, Any]]
    nodes: Sequence[Mapping[str, Any]]
    points: Sequence[str]
    files: Sequence[bytes]


def _agent(module: str) -> Any:
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module(f"agent.{module}")


def _conversation() -> Any:
    reading = _agent("reading")
    if INPUT is not None:
        return reading.read(INPUT)
    texts = sentences(LINES)
    lines = [reading.Line("영희" if at % 2 else "철수", text, bool(at % 2)) for at, text in enumerate(texts)]
    return reading.Conversation("conversation", hashlib.sha256(repr(texts).encode()).hexdigest(), "UTF-8", lines)


@asynccontextmanager
async def _opened() -> AsyncGenerator[HybridDataArchitecture]:
    async with AsyncExitStack() as own:
        stores: dict[str, Mapping[str, Any]] = {}
        for name, server in STORES.items():
            made = places(url_of(server))()
            at = await asyncio.to_thread(made.__enter__)
            own.push_async_callback(asyncio.to_thread, made.__exit__, None, None, None)
            stores[name] = {"url": at.url, "options": dict(at.options)}
        declared = _agent("entities")
        names = ("Source", "Person", "Profile", "Topic", "Message", "Attachment", "Presence", "Session", "Deed")
        classes = [getattr(declared, name) for name in names]
        yield await own.enter_async_context(HybridDataArchitecture.open({"stores": stores}, entities=classes))


async def _learned(hda: HybridDataArchitecture, conversation: Any) -> Learned:
    """What the import left, read back."""
    declared = _agent("entities")
    messages = [one async for one in hda.collection(declared.Message).stream()]
    packed = [hda.manager.inline_vectors("message", {"text": one.text})["text"] for one in messages]
    vectors = [
        {"id": one.id, "source": one.source, "place": struct.unpack(f"<{len(vector) // 4}f", vector)}
        for one, vector in zip(messages, packed, strict=True)
    ]
    nodes = [
        {
            "id": one.id,
            "text": one.text,
            "said_by": [one.speaker],
            "reply_to": [one.reply_to] if one.reply_to else [],
            "about": one.about,
        }
        for one in messages
    ]
    points = [
        f"{measure},speaker={at % 9} value={len(line.text)} {(1_700_000_000 + 60 * at) * 10**9}"
        for at, line in enumerate(conversation.lines)
        for measure in ("valence", "length")
    ]
    attachments = [one async for one in hda.collection(declared.Attachment).stream()]
    files = [await hda.files.read(one.content) for one in attachments]
    return Learned([msgspec.to_builtins(one) for one in messages], vectors, nodes, points, files)


async def _series(points: Sequence[str]) -> None:
    at = influxdb_options(url_of("influxdb"), {})
    headers = {"Authorization": f"Token {at.options.token}"}
    async with httpx.AsyncClient(base_url=at.server, headers=headers, timeout=60) as client:
        made = await client.get("/api/v2/orgs")
        org = made.raise_for_status().json()["orgs"][0]["id"]
        bucket = (await client.post("/api/v2/buckets", json={"name": uuid.uuid4().hex, "orgID": org})).json()
        for first in range(0, len(points), 5_000):
            body = "\n".join(points[first : first + 5_000])
            given = {"org": org, "bucket": bucket["name"]}
            (await client.post("/api/v2/write", params=given, content=body)).raise_for_status()
        (await client.delete(f"/api/v2/buckets/{bucket['id']}")).raise_for_status()


async def _objects(files: Sequence[bytes]) -> None:
    at = s3_options(url_of("minio"), {})
    store, prefix = at.store(), f"{at.prefix}{uuid.uuid4().hex}/"
    keys = [f"{prefix}{number}" for number in range(len(files))]
    for first in range(0, len(files), TOGETHER):
        some = zip(keys[first : first + TOGETHER], files[first : first + TOGETHER], strict=True)
        await asyncio.gather(*(obstore.put_async(store, key, data) for key, data in some))
    await obstore.delete_async(store, keys)


async def _by_hand(learned: Learned) -> float:
    async with (
        bulk.mongodb(url_of("mongodb"), "source") as documents,
        bulk.elasticsearch(url_of("elasticsearch"), "text") as search,
        bulk.neo4j(url_of("neo4j"), EDGES) as graph,
        bulk.chroma(url_of("chromadb")) as vectors,
    ):
        started = time.perf_counter()
        await asyncio.gather(
            documents(learned.messages),
            search(learned.messages),
            graph(learned.nodes),
            vectors(learned.vectors),
            _series(learned.points),
            _objects(learned.files),
        )
        return time.perf_counter() - started


def _unheard(report: object) -> None:
    pass


async def imported(directory: Path) -> list[Ratio]:
    """The seconds of the whole, divided by the messages."""
    conversation = _conversation()
    ours: list[float] = []
    theirs: list[float] = []
    count = len(conversation.lines)
    for _ in range(ROUNDS):
        async with _opened() as hda:
            started = time.perf_counter()
            await _agent("learning").Learner(hda).learn(conversation, _unheard)
            ours.append((time.perf_counter() - started) / count)
            learned = await _learned(hda, conversation)
        theirs.append(await _by_hand(learned) / count)
    name = f"a conversation of {count:,} messages into eight stores, a message"
    return [at_least(21, name, "bulk calls, all at once", TARGET, ours, theirs)]
