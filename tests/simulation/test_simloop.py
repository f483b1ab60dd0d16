"""The loop under the simulation: one seed one history, virtual time, processes that die without a last word."""

import asyncio
import contextlib
import gc
import itertools
import logging
import socket
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from polystore.testing.simloop import Deadlock, NotSimulated, SimLoop, current_process, run


@pytest.fixture(autouse=True)
def nothing_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Warnings are errors everywhere; here what asyncio would only log is one too, also what the collector finds."""
    gc.freeze()  # what other tests have left is not looked at again
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield
        gc.collect()
    gc.unfreeze()
    assert caplog.messages == []


async def program(log: list[str]) -> None:
    """Every primitive of asyncio that an application uses, `finally` and `except` around each."""

    @contextlib.asynccontextmanager
    async def span(name: str) -> AsyncGenerator[None]:
        log.append(f"{name} begins")
        try:
            yield
        except BaseException as error:
            log.append(f"{name} fails with {type(error).__name__}")
            raise
        finally:
            log.append(f"{name} ends")
            await asyncio.sleep(0)

    async def numbers() -> AsyncGenerator[int]:
        try:
            for n in range(3):
                await asyncio.sleep(0.01)
                yield n
        finally:
            log.append("generator ends")

    queue: asyncio.Queue[int] = asyncio.Queue(1)
    lock, condition, event = asyncio.Lock(), asyncio.Condition(), asyncio.Event()

    async def produce() -> None:
        async with span("produce"):
            async for n in numbers():
                await queue.put(n)

    async def consume() -> None:
        async with span("consume"), lock:
            for n in range(3):
                assert await queue.get() == n
        async with condition:
            condition.notify_all()

    async def watch() -> None:
        async with span("watch"), condition:
            await condition.wait()

    asyncio.get_running_loop().call_later(0.02, event.set)
    async with span("all"), asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(produce(), consume()), timeout=5)
        await asyncio.wait({watching})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), span("timeout"):
                await asyncio.Event().wait()
        await event.wait()
    log.append("done")


def traced(seed: int) -> tuple[int, list[str]]:
    log: list[str] = []

    async def main(loop: SimLoop) -> int:
        await asyncio.gather(*(loop.process(f"p{i}").run(lambda: program(log)) for i in range(3)))
        return loop.trace

    return run(seed, main), log


def test_one_seed_is_one_history_and_another_seed_another() -> None:
    histories = {seed: traced(seed) for seed in range(30)}
    assert all(log.count("done") == 3 for _, log in histories.values())
    assert {seed: traced(seed) for seed in range(30)} == histories
    assert len({trace for trace, _ in histories.values()}) == 30


def test_the_trace_tells_histories_apart_that_differ_in_a_note_only() -> None:
    def trace(*notes: str) -> int:
        async def main(loop: SimLoop) -> int:
            for note in notes:
                loop.note(note)
            return loop.trace

        return run(1, main)

    assert trace("put a", "put b") == trace("put a", "put b")
    assert len({trace("put a", "put b"), trace("put b", "put a"), trace("put a"), trace()}) == 4


@pytest.mark.parametrize("delay", [0, 1])
def test_seeds_reach_every_order_of_what_happens_at_one_time(delay: int) -> None:
    def order(seed: int) -> tuple[int, ...]:
        seen: list[int] = []

        async def main(loop: SimLoop) -> None:
            for n in range(4):
                loop.call_later(delay, seen.append, n)
            await asyncio.sleep(2)

        run(seed, main)
        return tuple(seen)

    assert {order(seed) for seed in range(300)} == set(itertools.permutations(range(4)))


def test_tasks_in_sets_do_not_bring_their_addresses_into_the_history() -> None:
    def cancelled_in_order(ballast: list[object]) -> list[int]:
        order: list[int] = []

        async def child(n: int) -> None:
            try:
                await asyncio.sleep(9)
            finally:
                order.append(n)

        async def main(_: SimLoop) -> None:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    for n in range(12):
                        group.create_task(child(n))
                        ballast.extend(bytearray(50 * len(ballast) % 997) for _ in range(5))
                    await asyncio.sleep(1)
                    raise OSError("aborts the group, which cancels a set of tasks")

        run(7, main)
        return order

    ballast: list[object] = []
    assert len({tuple(cancelled_in_order(ballast)) for _ in range(10)}) == 1


def test_a_month_of_virtual_time_passes_at_once_and_timers_fire_in_its_order() -> None:
    async def main(loop: SimLoop) -> list[float]:
        fired: list[float] = []
        for delay in (86_400.0, 3.0, 2_592_000.0, 3.0, 0.5):
            loop.call_later(delay, lambda: fired.append(loop.time()))
        loop.call_later(1.0, fired.append, -1.0).cancel()
        await asyncio.sleep(2_592_001)
        return [*fired, loop.time()]

    assert run(3, main) == [0.5, 3.0, 3.0, 86_400.0, 2_592_000.0, 2_592_001.0]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_cancelled_does_not_run_though_it_was_ready(seed: int) -> None:
    async def main(loop: SimLoop) -> set[str]:
        ran: set[str] = set()
        handles = [loop.call_soon(ran.add, "soon"), loop.call_later(1, ran.add, "later")]

        def cancel(handle: asyncio.Handle) -> None:
            ran.add("cancelled")
            handle.cancel()

        handles[0].cancel()
        handles.append(loop.call_later(2, cancel, loop.call_later(2, ran.add, "other")))
        handles.append(loop.call_later(2, ran.add, "last"))
        await asyncio.sleep(3)
        return ran

    assert run(seed, main) - {"other"} == {"later", "cancelled", "last"}


@pytest.mark.parametrize("seed", range(5))
def test_timeouts_fire_in_virtual_time(seed: int) -> None:
    async def main(loop: SimLoop) -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(12):
                await asyncio.sleep(1e9)
        return loop.time()

    assert run(seed, main) == 42


def said_when_killed(in_place_of_step: int, seed: int) -> tuple[bool, list[str]]:
    """Whether the program was killed and what it had said long after that, while a neighbour ran it to its end."""
    log: list[str] = []
    neighbours_log: list[str] = []

    async def main(loop: SimLoop) -> tuple[bool, list[str]]:
        victim = loop.process("victim")
        victim.start(lambda: program(log))
        victim.kill(after_steps=in_place_of_step)
        await loop.process("neighbour").run(lambda: program(neighbours_log))
        await asyncio.sleep(100)
        gc.collect()  # asyncio knows its tasks by weak references only: to it the dead are garbage
        assert neighbours_log[-1] == "done"
        return not victim.alive, list(log)

    return run(seed, main)


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_await_a_process_says_nothing_more_and_others_go_on(seed: int) -> None:
    killed, whole = said_when_killed(10_000, seed)
    assert not killed
    assert whole[-1] == "done"
    steps = 0
    while killed or steps == 0:
        killed, said = said_when_killed(steps, seed)
        assert said == whole[: len(said)]  # no `finally`, no `except` that the program had not come to by itself
        steps += 1
    assert steps > 25


def test_the_dead_keep_their_silence_while_thousands_of_tasks_come_and_go() -> None:
    async def main(loop: SimLoop) -> list[str]:
        said: list[str] = []

        async def wait_for_ever(name: str) -> None:
            try:
                await asyncio.Queue[None]().get()  # a cycle of objects that nothing else refers to
            finally:
                said.append(name)

        dead = loop.process("dead")
        dead.start(lambda: wait_for_ever("dead"))
        loop.process("alive").start(lambda: wait_for_ever("alive"))
        await asyncio.sleep(1)
        dead.kill()
        for _ in range(40):
            await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(100)))
        gc.collect()
        return list(said)

    assert run(1, main) == []


def test_what_only_a_dropped_callback_held_is_not_finalized_either() -> None:
    async def main(loop: SimLoop) -> list[str]:
        said: list[str] = []

        async def rows() -> AsyncGenerator[int]:
            try:
                yield 1
            finally:
                said.append("generator ends")

        async def read() -> None:
            reading = rows()
            await anext(reading)
            loop.call_later(5, print, reading)

        process = loop.process("p")
        await process.run(read)
        process.kill()
        await asyncio.sleep(10)
        return list(said)

    assert run(1, main) == []


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_process_can_kill_itself_and_stops_at_its_next_await(at: int) -> None:
    log: list[str] = []

    async def victim() -> None:
        asyncio.get_running_loop().call_later(0.5, log.append, "timer")
        background = asyncio.create_task(say_soon())
        for point in range(3):
            try:
                process = current_process()
                if point == at and process is not None:
                    process.kill()
                log.append(f"reached {point}")
                await asyncio.sleep(0.1)
                log.append(f"passed {point}")
            finally:
                log.append(f"left {point}")
        await background

    async def say_soon() -> None:
        await asyncio.sleep(0.5)
        log.append("background")

    async def main(loop: SimLoop) -> list[str]:
        assert current_process() is None
        process = loop.process("p")
        process.start(victim)
        await asyncio.sleep(10)
        assert process.alive == (at == 3)
        return list(log)

    whole = [f"{word} {point}" for point in range(3) for word in ("reached", "passed", "left")]
    said = run(1, main)
    if at < 3:
        assert said == whole[: 3 * at + 1]
    else:
        assert said[:9] == whole
        assert sorted(said[9:]) == ["background", "timer"]


def test_what_the_world_sends_to_a_dead_process_is_dropped() -> None:
    heard: list[object] = []

    async def main(loop: SimLoop) -> None:
        answer: asyncio.Future[str] = loop.create_future()
        broken: asyncio.Future[str] = loop.create_future()

        async def wait_for(future: asyncio.Future[str]) -> None:
            try:
                heard.append(await future)
            except OSError as error:
                heard.append(error)

        process = loop.process("p")
        process.start(lambda: wait_for(answer))
        process.start(lambda: wait_for(broken))
        await asyncio.sleep(1)
        process.kill()
        answer.set_result("too late")
        broken.set_exception(OSError("too late"))
        await asyncio.sleep(1)

    run(1, main)
    assert heard == []


def test_what_a_process_left_in_the_world_happens_after_its_death() -> None:
    applied: list[str] = []
    arrivals: list[asyncio.Task[None]] = []

    async def main(loop: SimLoop) -> None:
        async def send() -> None:
            loop.call_later(5, applied.append, "on the wire", context=loop.outside)
            loop.call_later(5, applied.append, "in memory")
            arrivals.append(loop.create_task(arrive(), context=loop.outside))
            await asyncio.sleep(9)

        async def arrive() -> None:
            await asyncio.sleep(6)
            applied.append("in the store")

        process = loop.process("p")
        process.start(send)
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(9)

    run(1, main)
    assert applied == ["on the wire", "in the store"]


def test_a_name_lives_again_as_a_new_process_and_a_dead_one_does_not() -> None:
    async def main(loop: SimLoop) -> str:
        first = loop.process("p")
        first.start(lambda: asyncio.sleep(9))
        first.kill()
        first.kill(after_steps=9)
        with pytest.raises(RuntimeError, match="p is dead"):
            first.start(lambda: asyncio.sleep(9))
        return await loop.process("p").run(lambda: asyncio.sleep(1, "alive"))

    assert run(1, main) == "alive"


@pytest.mark.parametrize("from_inside", [True, False])
def test_a_paused_process_stands_still_and_goes_on_with_all_it_missed(from_inside: bool) -> None:
    async def main(loop: SimLoop) -> dict[str, list[float]]:
        ticks: dict[str, list[float]] = {"paused": [], "other": []}

        async def tick(name: str) -> None:
            loop.call_later(4, ticks[name].append, -4.0)
            for n in range(4):
                await asyncio.sleep(1)
                ticks[name].append(loop.time())
                process = current_process()
                if from_inside and n == 1 and name == "paused" and process is not None:
                    process.pause(10)

        paused = loop.process("paused")
        root = asyncio.create_task(paused.run(lambda: tick("paused")))
        loop.process("other").start(lambda: tick("other"))
        await asyncio.sleep(2.5)
        if not from_inside:
            paused.pause(9.5)
            paused.pause(1)  # the longer pause counts
        await root
        return ticks

    ticks = run(1, main)
    assert sorted(ticks["other"]) == [-4, 1, 2, 3, 4]
    assert sorted(ticks["paused"]) == [-4, 1, 2, 12, 13]
    assert ticks["paused"].index(-4) in (2, 3)  # a late timer, at 12


def test_a_paused_process_can_be_killed() -> None:
    said: list[str] = []

    async def main(loop: SimLoop) -> None:
        process = loop.process("p")
        process.start(lambda: program(said))
        await asyncio.sleep(0.005)
        process.pause(5)
        await asyncio.sleep(1)
        before = list(said)
        process.kill()
        await asyncio.sleep(10)
        assert said == before != []

    run(1, main)


def test_nothing_left_to_run_is_a_deadlock_that_names_who_waits() -> None:
    async def main(loop: SimLoop) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        async def leave() -> asyncio.Task[None]:
            return loop.create_task(hang(), context=loop.outside)

        dead = loop.process("dead")
        dead.start(hang)
        dead.kill()
        loop.process("p").start(hang)
        process_left = await loop.process("q").run(leave)
        await asyncio.sleep(7)
        assert not process_left.done()
        await asyncio.sleep(float("inf"))

    with pytest.raises(Deadlock) as caught:
        run(1, main)
    assert "at virtual time 7.0: 3 tasks" in str(caught.value)
    for waiting in ("main of the outside", "hang of the outside", "hang of p"):
        assert f"{waiting}," in f"{caught.value},"


def _in_a_thread(loop: SimLoop) -> Coroutine[Any, Any, object]:
    return asyncio.to_thread(len, "")


def _connect(loop: SimLoop) -> Coroutine[Any, Any, object]:
    return asyncio.open_connection("localhost", 1)


def _child(loop: SimLoop) -> Coroutine[Any, Any, object]:
    return asyncio.create_subprocess_exec("true")


async def _receive(loop: SimLoop) -> None:
    with socket.socket() as sock:
        await loop.sock_recv(sock, 1)


async def _watch(loop: SimLoop) -> None:
    loop.add_reader(0, len, "")


@pytest.mark.parametrize("call", [_in_a_thread, _connect, _child, _receive, _watch])
def test_threads_sockets_and_children_are_refused(call: Callable[[SimLoop], Coroutine[Any, Any, object]]) -> None:
    async def main(loop: SimLoop) -> None:
        with pytest.raises(NotSimulated, match="simulated code uses no threads"):
            await call(loop)

    run(1, main)


def test_a_call_from_a_thread_is_refused() -> None:
    loop = SimLoop(1)
    refused: list[BaseException] = []

    def call() -> None:
        try:
            loop.call_soon_threadsafe(len, "")
        except NotSimulated as error:
            refused.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    loop.close()
    assert len(refused) == 1


def test_what_fails_in_the_step_of_its_own_kill_is_the_end_of_the_process_not_of_the_run() -> None:
    async def main(loop: SimLoop) -> None:
        async def crash() -> None:
            process.kill()
            raise OSError("the rest of the step")

        process = loop.process("p")
        process.start(crash)
        await asyncio.sleep(1)

    run(1, main)


@pytest.mark.parametrize("where", ["callback", "root task"])
def test_a_failure_that_nobody_awaits_fails_the_run(where: str) -> None:
    async def fail() -> None:
        raise OSError("lost")

    async def main(loop: SimLoop) -> None:
        if where == "callback":
            loop.call_soon(int, "not a number")
        else:
            loop.process("p").start(fail)
        await asyncio.Event().wait()  # what it brings about must not hide it

    with pytest.raises(ExceptionGroup) as caught:
        run(5, main)
    assert "seed 5" in str(caught.value)
    assert isinstance(caught.value.__context__, Deadlock)
    assert [type(error) for error in caught.value.exceptions] == [ValueError if where == "callback" else OSError]


def test_a_failed_task_that_nobody_asked_is_logged_at_the_end_unless_its_process_died(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(loop: SimLoop, killed: bool) -> None:
        async def work() -> None:
            background.append(asyncio.create_task(fail()))
            await asyncio.sleep(9)

        async def fail() -> None:
            raise OSError("in the background")

        background: list[asyncio.Task[None]] = []
        process = loop.process("p")
        process.start(work)
        await asyncio.sleep(1)
        if killed:
            process.kill()

    run(1, lambda loop: main(loop, True))
    gc.collect()
    assert caplog.messages == []
    run(1, lambda loop: main(loop, False))
    gc.collect()
    assert ["Task exception was never retrieved" in message for message in caplog.messages] == [True]
    caplog.clear()


def test_the_end_is_quiet_and_frees_all_whatever_the_finally_blocks_do() -> None:
    class Held:
        pass

    async def never_awaited(held: Held) -> None:
        raise AssertionError(held)

    async def main(loop: SimLoop) -> list[weakref.ref[Held]]:
        held = [Held() for _ in range(4)]

        async def stubborn() -> None:
            mine = held[0]
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(99)
            raise AssertionError(mine)

        async def failing() -> None:
            late = never_awaited(held[1])
            try:
                await asyncio.sleep(99)
            finally:
                await asyncio.create_task(never_awaited(held[2]))
            await late

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(50):
                for _ in range(3):
                    tasks.create_task(asyncio.sleep(99))
                loop.call_soon(asyncio.create_task, never_awaited(held[3]))
                await asyncio.sleep(99)

        for coro_fn in (stubborn, failing, group):
            for kill in (True, False):
                process = loop.process("p")
                process.start(coro_fn)
                if kill and coro_fn is not group:
                    await asyncio.sleep(1)
                if kill:
                    process.kill(after_steps=2)
        gc.collect()
        return [weakref.ref(h) for h in held]

    left = run(1, main)
    gc.collect()
    assert [ref() for ref in left] == [None] * 4


def test_the_garbage_collector_rests_during_a_run_and_works_again_after_it() -> None:
    async def main(_: SimLoop) -> bool:
        return gc.isenabled()

    assert not run(1, main)
    assert gc.isenabled()
