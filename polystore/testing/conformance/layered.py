"""The same repository under all layers: calls of a store in the shape of a repository, for the kit to run on."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from polystore.env import Env
from polystore.errors import PolystoreError
from polystore.model import Commit, Committed, Key, Record
from polystore.protocols import Repository
from polystore.store import Settings, Store
from polystore.testing.conformance.base import Connect


def layered(connect: Connect) -> Connect:
    """Connections whose calls pass through a `polystore.store.Store`: traced, measured, timed, retried, limited, and
    travelling together. A subclass of a kit's class that gives `layered(...)` runs the same tests under all layers."""

    async def connected(env: Env) -> Repository:
        return _shaped(await connect(env), env)

    return connected


def _shaped(repository: Any, env: Env) -> Repository:
    """A store with the methods of its repository, and with no others. `prepare` is called before there is a store, so
    it stays under no layer."""
    store = Store("kit", repository, env=env, settings=Settings(timeout_s=60.0))  # a busy machine is no outage

    async def get(keys: Sequence[Key]) -> Sequence[Record | None]:
        return await store.get(keys)

    async def commit(commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers = await asyncio.gather(*map(store.commit, commits), return_exceptions=True)
        return [_an_answer(answer) for answer in answers]

    shape = _Shape(capabilities=repository.capabilities, limits=repository.limits, under=repository)
    for protocol in (Repository, *repository.capabilities):
        for verb, method in vars(protocol).items():
            if inspect.iscoroutinefunction(method):
                setattr(shape, verb, _through(store, method))
    instead: dict[str, Any] = {"get": get, "commit": commit, "get_now": store.get_now, "aclose": store.aclose}
    instead |= {
        name: getattr(repository, name)
        for name in ("prepare", "metrics", "lookup_now", "invalidate_now", "commit_on")
        if hasattr(repository, name)
    }
    for name, value in instead.items():
        if hasattr(repository, name):
            setattr(shape, name, value)
    return cast(Repository, shape)


class _Shape(SimpleNamespace):
    under: Any

    @property
    def checked_out(self) -> int:
        return int(getattr(self.under, "checked_out", 0))


def _an_answer(answer: Committed | BaseException) -> Committed | Exception:
    """What belongs into the answer of `commit`: the commit's own error; an outage and the like are raised."""
    if isinstance(answer, PolystoreError) and not answer.retryable:
        return answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _through(store: Store, method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        return await store.call(method, *args)

    functools.update_wrapper(call, method)
    ours = inspect.signature(method)
    signature = ours.replace(parameters=list(ours.parameters.values())[1:])
    setattr(call, "__signature__", signature)  # noqa: B010 -- a function has no such attribute to a type checker
    return call
