"""SimLoop: an asyncio event loop without clock, sockets or threads, whose every choice follows from one seed.

The next step is drawn at random among all that are ready, one step at a time, so that any step may overtake any other;
virtual time moves only when nothing is ready, and costs nothing. Several simulated processes live in one loop; each can
be killed (nothing of it runs again, no `finally` either) or paused at any step. [FoundationDB's simulation, in small]

What a simulation must respect, so that one seed means one history:
- time, randomness and ids come from the loop and from the seed; no iteration over sets of objects hashed by address
  (tasks are safe: they are hashed by their number, since TaskGroup and asyncio.wait keep them in sets);
- processes share no asyncio primitive (a dead getter of a shared Queue swallows a wake-up, as it should not); what a
  process leaves behind in the world, such as a request still on the wire, is scheduled with `context=loop.outside`;
- a simulated store suspends at least once before it changes anything: what was killed from inside ends there.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
import itertools
import math
import random
import threading
import warnings
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, Never, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_process: contextvars.ContextVar["SimProcess"] = contextvars.ContextVar("polystore_sim_process")


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set, but the awaited result has not come."""


class NotSimulated(RuntimeError):
    """The code under simulation asked for a thread, a socket, a signal or a child process."""


def current_process() -> "SimProcess | None":
    """The simulated process whose step is running; None outside of all."""
    return _process.get(None)


class SimProcess:
    """One simulated operating system process, made by `SimLoop.process`. A restart is a new SimProcess."""

    def __init__(self, loop: "SimLoop", name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.steps_left: float = math.inf
        self.resumes_at = -math.inf

    def start(self, coro_fn: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `coro_fn()` as a root task. Every task, callback and timer made inside belongs to this process.

        An exception of the root task is added to `loop.failures`. Raises RuntimeError when the process has been killed.
        """
        self._spawn(coro_fn).add_done_callback(self._root_done, context=self.loop.outside)

    async def run(self, coro_fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Like `start`, and wait for the result or the exception: for ever, once the process is killed."""
        return await self._spawn(coro_fn)

    def _spawn(self, coro_fn: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        if not self.alive:
            raise RuntimeError(f"process {self.name} is dead: make a new one with loop.process")
        context = contextvars.copy_context()
        context.run(_process.set, self)
        return self.loop.create_task(context.run(coro_fn), name=self.name, context=context)

    def _root_done(self, task: asyncio.Task[Any]) -> None:
        error = task.exception() if self.alive and not task.cancelled() else None
        if error is not None:
            self.loop.failures.append(error)

    def kill(self, after_steps: int = 0) -> None:
        """From now on no step, callback or timer of this process runs, and no `finally`, `except` or `__aexit__`.

        Called from inside the process, the running step ends at its next suspension (`await asyncio.sleep(0)` is one).
        With `after_steps` it dies in place of the step after that many more: 0, 1, 2... reach every await of a program.
        """
        self.alive = self.alive and after_steps > 0
        self.steps_left = after_steps
        self.loop.disturbed = True

    def pause(self, seconds: float) -> None:
        """Hold every step back until `seconds` of virtual time from now; then it goes on, timers late (SIGSTOP)."""
        self.resumes_at = max(self.resumes_at, self.loop.time() + seconds)
        self.loop.disturbed = True


class _SimTask(asyncio.Task[T]):
    """A task hashed by its number instead of its address, so that sets of tasks iterate alike in every run."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: "SimLoop", **options: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """A deterministic event loop. `close` ends the simulation: what is still pending is closed without a warning.

    Of CPython's private names (3.11 to 3.14) it needs three: `BaseEventLoop._run_once`, which run_forever calls and
    this class replaces, `Handle._run` and `Handle._context`. The queues are its own.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.steps = 0
        self.trace = 0  # digest of (time, number ready, choice) of all steps, and of the notes
        self.failures: list[BaseException] = []  # of callbacks and of the processes' root tasks
        self.outside = contextvars.Context()  # belongs to no process
        self.disturbed = False  # was ever a process killed or paused? Until then no step needs a look at its owner
        self.numbers = itertools.count()
        self._random = random.Random(f"schedule {seed}").random  # not Random(seed), which the test draws from itself
        self._thread = threading.get_ident()
        self._now = 0.0
        self._ready_handles: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.Handle]] = []
        self._dropped: list[asyncio.Handle] = []  # of dead processes: freeing them could run their coroutines' finally
        self._tasks: list[tuple[SimProcess | None, asyncio.Task[Any]]] = []  # the same, for tasks; asyncio's are weak
        self._tasks_swept_at = 1024

    def process(self, name: str) -> SimProcess:
        return SimProcess(self, name)

    def note(self, event: str) -> None:
        """Add what the application did to the trace, which by itself knows order and time only."""
        self.trace = zlib.crc32(event.encode(), self.trace & 0xFFFFFFFF)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready_handles.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            raise NotSimulated("a thread called into the simulation: its moment would not follow from the seed")
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._now:
            self._ready_handles.append(timer)
        elif when < math.inf:
            heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        task = _SimTask(coro, loop=self, **options)
        context: contextvars.Context | None = options.get("context")
        self._tasks.append((_process.get(None) if context is None else context.get(_process), task))
        if len(self._tasks) > self._tasks_swept_at:
            self._tasks = [(owner, t) for owner, t in self._tasks if not t.done() or _is_dead(owner)]
            self._tasks_swept_at = 2 * len(self._tasks) + 1024
        return task

    def _run_once(self) -> None:
        ready = self._ready_handles
        if not ready:
            self._advance()
        count = len(ready)
        choice = int(self._random() * count)
        handle = ready[choice]
        ready[choice] = ready[-1]
        ready.pop()
        if handle.cancelled() or (self.disturbed and self._held_back(handle)):
            return
        self.steps += 1
        self.trace = hash((self.trace, self._now, count, choice))
        handle._run()

    def _advance(self) -> None:
        """Move the time to the next timers and make them ready."""
        timers, ready = self._timers, self._ready_handles
        while not ready:
            if not timers:
                raise Deadlock(f"nothing can run any more at virtual time {self._now}: {self._waiting()}")
            self._now = timers[0][0]
            while timers and timers[0][0] <= self._now:
                handle = heapq.heappop(timers)[2]
                if not handle.cancelled():
                    ready.append(handle)

    def _held_back(self, handle: asyncio.Handle) -> bool:
        process: SimProcess | None = handle._context.get(_process)  # type: ignore[attr-defined]
        if process is None:
            return False
        if process.alive and process.resumes_at > self._now:
            heapq.heappush(self._timers, (process.resumes_at, next(self.numbers), handle))
            return True
        process.steps_left -= 1
        process.alive = process.alive and process.steps_left >= 0
        if not process.alive:
            self._dropped.append(handle)
        return not process.alive

    def _waiting(self) -> str:
        waiting = [
            f"{getattr(task.get_coro(), '__qualname__', '?')} of {owner.name if owner else 'the outside'}"
            for owner, task in self._tasks
            if not task.done() and not _is_dead(owner)
        ]
        return f"{len(waiting)} tasks of living processes wait for ever: {', '.join(waiting[:10])}"

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Add a failed callback to `failures`. After the end only failed tasks that nobody asked are logged."""
        if not self.is_closed():
            self.failures.append(context.get("exception") or RuntimeError(context["message"]))
        elif isinstance(context.get("future"), asyncio.Task):
            super().call_exception_handler(context)

    def close(self) -> None:
        """End the simulation. Coroutines still suspended are closed here, so that now their `finally` blocks do run:
        look at the outcome before."""
        super().close()  # refuses while running; from here on async generators are freed without a task to close them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "never awaited": of coroutines that died before their first step
            while self._tasks:
                owner, task = self._tasks.pop()
                if not task.done():
                    _close_coroutine(task)
                elif _is_dead(owner) and not task.cancelled():
                    task.exception()  # so that asyncio does not log that the dead never asked
            self._ready_handles.clear()
            self._timers.clear()
            self._dropped.clear()


def _is_dead(process: SimProcess | None) -> bool:
    return process is not None and not process.alive


def _close_coroutine(task: asyncio.Task[Any]) -> None:
    coro = task.get_coro()
    for _ in range(100):
        with contextlib.suppress(BaseException):
            coro.close()  # raises when a finally block fails or awaits; the next try goes on from there
            return


def _refuse(name: str) -> Callable[..., Never]:
    def refuse(*_args: object, **_options: object) -> Never:
        raise NotSimulated(f"{name}: simulated code uses no threads, sockets, signals or child processes")

    return refuse


_REAL_WORLD = """add_ connect_ create_connection create_datagram create_server create_unix getaddrinfo getnameinfo
    remove_ run_in_executor sendfile sock_ start_tls subprocess_"""
for _name in vars(asyncio.AbstractEventLoop):
    if _name.startswith(tuple(_REAL_WORLD.split())):
        setattr(SimLoop, _name, _refuse(_name))


def run(seed: int, main: Callable[[SimLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(loop)` to its end in a new SimLoop and return its result; the loop is closed after it.

    Raises Deadlock when nothing can run any more, and an exception group when `loop.failures` is not empty, also when
    `main` fails, since those came first. The garbage collector rests meanwhile: finalizers would run at moments that do
    not follow from the seed.
    """
    loop = SimLoop(seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
        if collecting:
            gc.enable()
        if loop.failures:
            raise BaseExceptionGroup(f"failures in the simulation with seed {seed}", loop.failures)
