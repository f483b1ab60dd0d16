"""The network between processes and servers: everything that can happen to a call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from polystore_adapters.memory import MemoryRepository

from polystore.env import Env
from polystore.errors import OutcomeUnknown, PolystoreError, RateLimited, StoreFull, Unavailable
from polystore.model import Change, Limits, Outcome
from polystore.protocols import SupportsCommit, SupportsInlineCache, SupportsInlineGet, SupportsJournal
from polystore.testing.simloop import SimLoop
from polystore.testing.simulation.history import History
from polystore.testing.simulation.servers import SimServer

P = ParamSpec("P")
R = TypeVar("R")

Trouble = Literal["down", "full", "silent"]
"""down: refuses connections. full: takes no changes. silent: does nothing and answers nothing."""

TROUBLES: tuple[Trouble, ...] = ("down", "full", "silent")
DELAY_S = 0.002
LATE_S = 8.0
READS = frozenset(
    (
        *("get", "lookup", "scan", "tenants", "ping", "claimed", "pending", "parked", "backlog", "placements"),
        *("targets", "mark", "vectors", "expired_keys", "spilled", "counts", "versions"),
    )
)
FAULTS = ("before", "after", "late", "lost", "twice", "slow", "busy")
"""before: refused. after: carried out, the connection breaks. late: no answer, carried out up to 8 s later. lost: no
answer, never carried out. twice: carried out again up to 8 s later. slow: seconds, there or back. busy: told to come
again."""


class Network:
    """The state of all connections. With `calm` set nothing goes wrong any more."""

    def __init__(self, loop: SimLoop, env: Env, history: History, fault: float) -> None:
        self.loop = loop
        self.history = history
        self.random = env.random
        self.fault = fault
        self.trouble: dict[str, Trouble] = {}
        """By server, or by "process>server" for a cut link."""
        self.flying = 0
        """Requests that will be carried out later, whoever sent them."""
        self.workers: dict[str, str] = {}
        """Process -> its worker, once it has had a lease."""
        self.looked: dict[str, float] = {}
        """Process -> when it last saw which copies there are."""
        self.unseen: dict[str, float] = {}
        """Process -> how long ago that was when it sent its last search."""

    def silent(self, process: str, seconds: float) -> bool:
        """Whether a process has not looked at the journal for so long, or had not when it asked its last question: who
        has stood still asks first, perhaps, and looks before the answer comes."""
        unseen = self.loop.time() - self.looked.get(process, 0.0)
        return max(unseen, self.unseen.get(process, 0.0)) > seconds

    def heal(self) -> None:
        self.fault = 0.0
        self.trouble.clear()

    def draw(self, verb: str) -> str:
        """Which fault this call meets, "" for none."""
        chance = self.random.random()
        if chance >= self.fault * len(FAULTS):
            return ""
        fault = FAULTS[int(chance / self.fault)]
        return "" if fault == "twice" and verb == "commit" else fault

    def land(self, work: Callable[[], object], what: str) -> None:
        """Carry out a request some time later."""
        self.flying += 1

        def arrive() -> None:
            self.flying -= 1
            self.history.note(f"late: {what}")
            with contextlib.suppress(PolystoreError):  # nobody is there to be told
                work()

        self.loop.call_later(self.random.uniform(0, LATE_S), arrive, context=self.loop.outside)


class Link:
    """The connection of one process with one server."""

    def __init__(self, network: Network, process: str, server: SimServer) -> None:
        self._network = network
        self._process = process
        self._server = server.name
        self._refused = ""

    def worker(self) -> str:
        """Of the process, once it has had a lease."""
        return self._network.workers.get(self._process, "")

    def leased(self, worker: str) -> None:
        self._network.workers[self._process] = worker

    async def call(self, verb: str, work: Callable[[], R]) -> R:
        """Send, have it carried out, bring the answer: or what else may happen on the way."""
        network = self._network
        fault = network.draw(verb)
        what = f"{self._process} -> {self._server}.{verb}"
        network.history.note(f"{what} {fault}")
        if verb == "search":
            network.unseen[self._process] = network.loop.time() - network.looked.get(self._process, 0.0)
        if fault:
            network.history.covered[f"fault {fault}"] += 1
        slow_there = fault == "slow" and network.random.random() < 0.5
        await self._travel(slow=slow_there)
        await self._meet_trouble(verb)
        if fault == "before":
            raise Unavailable("connection refused")
        if fault == "busy":
            raise RateLimited("429", retry_after_s=network.random.uniform(0.01, 0.5))
        if fault in ("late", "lost"):
            if fault == "late":
                network.land(work, what)
            await self._no_answer(verb)
        if fault == "twice":
            network.land(work, what)
        result, at = work(), network.loop.time()
        await self._travel(slow=fault == "slow" and not slow_there)
        if fault == "after":
            raise self._broken(verb)
        await self._meet_trouble(verb, on_the_way_back=True)
        if verb == "targets":
            network.looked[self._process] = at
        return result

    async def _travel(self, *, slow: bool) -> None:
        r = self._network.random
        if slow:
            await asyncio.sleep(r.uniform(0.1, 3.0))
        elif r.random() < 0.5:
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(r.expovariate(1 / DELAY_S))

    async def _meet_trouble(self, verb: str, *, on_the_way_back: bool = False) -> None:
        troubles = self._network.trouble
        if not troubles:
            return
        match troubles.get(self._server) or troubles.get(f"{self._process}>{self._server}"):
            case "down":
                raise self._broken(verb) if on_the_way_back else Unavailable("connection refused")
            case "full" if verb not in READS and not on_the_way_back:
                raise StoreFull("disk full")
            case "silent":
                await self._no_answer(verb)
            case _:
                pass

    async def _no_answer(self, verb: str) -> None:
        """Half of the drivers give up by themselves; with the others the caller's deadline must end it. Of `prepare`,
        which may have to carry records over, no caller has one: there all do."""
        r = self._network.random
        if r.random() < 0.5 or verb == "prepare":
            await asyncio.sleep(r.uniform(0.5, 2.0))
            raise self._broken(verb)
        await asyncio.get_running_loop().create_future()

    def _broken(self, verb: str) -> PolystoreError:
        return Unavailable("connection lost") if verb in READS else OutcomeUnknown("connection lost")

    def some_refused(self, count: int) -> set[int]:
        """Which of so many items of a bulk call the server is too busy for."""
        network = self._network
        if network.random.random() >= network.fault:
            return set()
        network.history.covered["fault partial"] += 1
        return {i for i in range(count) if network.random.random() < 0.5}


class SimRepository(MemoryRepository):
    """A memory server behind the network."""

    capabilities = MemoryRepository.capabilities - {SupportsInlineGet, SupportsInlineCache}

    def __init__(self, server: SimServer, env: Env, link: Link, batch_max: int, *, durable: bool = True) -> None:
        super().__init__(server, env)
        self.limits = Limits(batch_max=batch_max, ack_durable=durable)
        self._link = link

    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._check_open()
        return await self._link.call(method.__name__, lambda: method(*args, **kwargs))

    async def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        has = await super().hold_lease(name, worker, ttl_s)
        if has:
            self._link.leased(worker)
        return has

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        refused = self._link.some_refused(len(changes))
        if not refused:
            return await super().apply(changes)
        taken: list[Any] = await super().apply([c for i, c in enumerate(changes) if i not in refused])
        answers = iter(taken)
        return [
            Outcome("rejected", RateLimited("429 for this item")) if i in refused else next(answers)
            for i in range(len(changes))
        ]


class DocumentRepository(SimRepository):
    """A memory server that cannot commit: it says so itself."""

    capabilities = SimRepository.capabilities - {SupportsCommit, SupportsJournal}
