"""Another server takes over that lacks the last commits, or an older state of the data is put back: what copies hold of
the lost state is overwritten or removed, and no version is given out twice."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from typer.testing import CliRunner

from compose.native import own, processes
from compose.native.place import HOST, PASSWORD, USER, StackError
from compose.native.processes import Command
from compose.native.recipes.postgresql import POSTGRESQL, TREE_18, programs, psql
from compose.native.server import Site, nothing
from polystore import FullText, HybridDataArchitecture, StoreCorrupt, entity
from polystore.cli.app import app
from polystore.consistency.verify import Verifier
from polystore.errors import OutcomeUnknown, Unavailable
from tests.stack import own_server

BITS = 42


@entity(name="memo")
@dataclass
class Memo:
    id: str
    text: Annotated[str, FullText()] = ""


def configured(directory: Path, url: str) -> dict[str, Any]:
    return {
        "stores": {
            "main": {"url": url, "roles": ["home", "journal"], "options": {"connect_timeout_s": 2}},
            "search": {"url": f"sqlite:{directory}/search.db", "roles": ["full_text"]},
        }
    }


async def differences(hda: HybridDataArchitecture) -> list[object]:
    await hda.settle(60)
    verifier = Verifier(hda.manager.stores, hda.manager.placements, hda.manager.embedders)
    return [one async for one in verifier.differences("memo")]


async def found(hda: HybridDataArchitecture, words: str) -> list[str]:
    return sorted(hit.value.id for hit in await hda.collection(Memo).search(words, limit=100))


def basebackup(primary: int, site: Site) -> None:
    """The data of a standby: the primary's, and where to get what comes."""
    source = ["-h", HOST, "-p", str(primary), "-U", USER]
    command: Command = [programs(TREE_18) / "pg_basebackup", *source, "-D", site.store / "db", "-R", "-c", "fast"]
    processes.run(command, site.store, PGPASSWORD=PASSWORD)


class Pair:
    """A primary, and its standby that follows it until it is promoted. The URL is of whichever can be written."""

    def __init__(self, primary: own.OwnServer, standby: own.OwnServer) -> None:
        self.primary, self.standby = primary, standby
        hosts, _, database = primary.url.rpartition("/")
        self.url = f"{hosts},{HOST}:{port_of(standby)}/{database}?target_session_attrs=read-write"

    def ask(self, server: own.OwnServer, sql: str) -> str:
        try:
            return psql(TREE_18, port_of(server), "polystore", sql, Path("/")).strip()
        except StackError:  # it does not answer yet
            return ""

    def until(self, server: own.OwnServer, sql: str, answer: str) -> None:
        for _ in range(400):
            if self.ask(server, sql) == answer:
                return
            time.sleep(0.05)
        raise AssertionError(f"never: {sql} -> {answer}")

    def part(self) -> None:
        """The standby holds everything that was committed so far, and gets nothing of what comes."""
        end = self.ask(self.primary, "SELECT pg_current_wal_lsn()")
        self.until(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'", "t")
        self.ask(self.standby, "ALTER SYSTEM SET primary_conninfo = ''")
        self.ask(self.standby, "SELECT pg_reload_conf()")
        self.until(self.standby, "SELECT count(*) FROM pg_stat_wal_receiver", "0")

    def promote(self) -> None:
        self.primary.kill()
        self.ask(self.standby, "SELECT pg_promote()")
        self.until(self.standby, "SELECT pg_is_in_recovery()", "f")


def port_of(server: own.OwnServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


@contextmanager
def pair() -> Generator[Pair]:
    with own_server("postgresql") as primary:
        follows = partial(basebackup, port_of(primary))
        recipe = replace(POSTGRESQL, create=follows, settle=nothing)
        with own.own(recipe) as standby:
            yield Pair(primary, standby)


async def until_it_answers(work: Any) -> Any:
    for _ in range(200):
        try:
            return await work()
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(0.05)
    raise AssertionError("nobody took over")


def test_a_standby_that_lacks_the_last_commits_takes_over_and_nothing_diverges(tmp_path: Path) -> None:
    async def scenario(two_servers: Pair, config: dict[str, Any]) -> None:
        one = await HybridDataArchitecture.open(config, entities=[Memo])
        two = await HybridDataArchitecture.open(config, entities=[Memo])
        try:
            memos = one.collection(Memo)
            await memos.put_many([Memo(f"m{i}", f"anfang {i}") for i in range(30)])
            await memos.delete("m9")
            await one.settle()
            await asyncio.to_thread(two_servers.part)
            # None of this will have happened.
            await memos.put(Memo("m0", "verloren"))
            await memos.delete("m1")
            await memos.put(Memo("m9", "verloren"))
            lost = await memos.put(Memo("neu", "verloren"))
            await one.settle()
            assert await found(one, "verloren") == ["m0", "m9", "neu"]
            await asyncio.to_thread(two_servers.promote)
            writes = [(hda, i) for i, hda in enumerate([one, two, one, two])]
            results = await asyncio.gather(
                *(
                    until_it_answers(lambda h=hda, n=i: h.collection(Memo).put(Memo(f"m{2 + n}", "danach")))
                    for hda, i in writes
                )
            )
            assert {(result.version or 0) >> BITS for result in results} == {2}
            assert lost.version is not None
            assert lost.version >> BITS == 1
            for hda in (one, two):
                assert await differences(hda) == []
            assert await found(two, "verloren") == []
            assert await found(two, "anfang") == sorted(f"m{i}" for i in range(30) if i not in (2, 3, 4, 5, 9))
            assert await found(two, "danach") == ["m2", "m3", "m4", "m5"]
            assert (await two.collection(Memo).load("m1")).version >> BITS == 2
            assert two_servers.ask(two_servers.standby, "SELECT v FROM ps_meta WHERE k = 'epoch'") == "2"
        finally:
            await one.close()
            await two.close()

    with pair() as two_servers:
        asyncio.run(scenario(two_servers, configured(tmp_path, two_servers.url)))


def test_a_process_that_is_opened_after_the_promotion_goes_on_too(tmp_path: Path) -> None:
    async def before(config: dict[str, Any], two_servers: Pair) -> None:
        async with HybridDataArchitecture.open(config, entities=[Memo]) as hda:
            await hda.collection(Memo).put(Memo("a", "anfang"))
            await hda.settle()
            await asyncio.to_thread(two_servers.part)
            await hda.collection(Memo).put_many([Memo(f"n{i}", "verloren") for i in range(60)])
            await hda.settle()

    async def after(config: dict[str, Any]) -> None:
        async with HybridDataArchitecture.open(config, entities=[Memo]) as hda:
            assert await differences(hda) == []
            assert await found(hda, "verloren") == []
            assert await found(hda, "anfang") == ["a"]

    with pair() as two_servers:
        config = configured(tmp_path, two_servers.url)
        asyncio.run(before(config, two_servers))
        two_servers.promote()
        asyncio.run(after(config))


def test_an_older_state_of_the_same_timeline_is_refused_until_the_epoch_is_bumped_by_hand(tmp_path: Path) -> None:
    """As when a snapshot of the volume is put back: the server itself cannot tell."""

    async def write(config: dict[str, Any], *memos: Memo) -> None:
        async with HybridDataArchitecture.open(config, entities=[Memo]) as hda:
            await hda.collection(Memo).put_many(memos)
            await hda.settle()

    async def after(config: dict[str, Any]) -> None:
        async with HybridDataArchitecture.open(config, entities=[Memo]) as hda:
            assert await differences(hda) == []
            assert await found(hda, "verloren") == []
            result = await hda.collection(Memo).put(Memo("b", "danach"))
            assert (result.version or 0) >> BITS == 2
            assert await differences(hda) == []

    with own_server("postgresql") as server:
        config = configured(tmp_path, server.url)
        asyncio.run(write(config, Memo("a", "anfang")))
        server.stop()
        data = server._site.store / "db"  # pyright: ignore[reportPrivateUsage]
        subprocess.run(["cp", "-a", data, tmp_path / "snapshot"], check=True)
        server.start()
        asyncio.run(write(config, *(Memo(f"n{i}", "verloren") for i in range(60))))
        server.stop()
        subprocess.run(["rm", "-r", data], check=True)
        subprocess.run(["cp", "-a", tmp_path / "snapshot", data], check=True)
        server.start()
        with pytest.raises(StoreCorrupt, match="polystore epoch bump main"):
            asyncio.run(write(config, Memo("c", "x")))
        path = tmp_path / "polystore.toml"
        path.write_text(f'entities = []\n[stores.main]\nurl = "{server.url}"\n', encoding="utf-8")
        done = CliRunner().invoke(app, ["--config", str(path), "epoch", "bump", "main"])
        assert (done.exit_code, "epoch 2" in done.output) == (0, True)
        asyncio.run(after(config))
