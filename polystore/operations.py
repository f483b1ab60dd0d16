"""A call to a repository as a value, so that a layer is one method over any call.

An operation names a method of a protocol of `polystore.protocols` and its arguments:
`Operation.of(SupportsCommit.commit, commits)`. Types follow the protocol's signature; no verb is written twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from polystore import protocols
from polystore.model import Key
from polystore.protocols import Repository

R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")

Method = Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]

NOT_IDEMPOTENT = frozenset(
    {
        *("commit", "due", "backfill", "redrive"),
        *("add_state", "change_state", "increment", "take_allowance", "publish", "subscribe"),
    }
)
"""Repeating these after an unknown outcome could do something twice. All other verbs may be repeated."""

_PROTOCOLS: dict[str, type] = {
    protocol.__name__: protocol for protocol in vars(protocols).values() if isinstance(protocol, type)
}


class Operation(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """One call: the verb, its arguments, the protocol it belongs to."""

    verb: str
    args: tuple[Any, ...]
    capability: type

    @staticmethod
    def of(method: Method[P, S], *args: P.args, **kwargs: P.kwargs) -> Operation[S]:
        """The call of a protocol's method, typed as that method. Arguments are positional."""
        assert not kwargs, "operations take positional arguments"
        return Operation(method.__name__, args, _PROTOCOLS[method.__qualname__.partition(".")[0]])

    @property
    def idempotent(self) -> bool:
        return self.verb not in NOT_IDEMPOTENT

    @property
    def key(self) -> str | None:
        """The id of the record, where the call concerns exactly one."""
        match self.args:
            case ([one], *_) | (Key() as one, *_):
                key = getattr(one, "key", one)
                return getattr(key, "id", None)
            case _:
                return None

    def run(self, repository: Repository) -> Awaitable[R]:
        answer: Awaitable[R] = getattr(repository, self.verb)(*self.args)
        return answer


class Call(Protocol):
    """The rest of the way to the repository."""

    def __call__(self, operation: Operation[R]) -> Awaitable[R]: ...


class Layer(Protocol):
    """Behaviour around every call to one store. A layer keeps the errors' types and passes CancelledError untouched."""

    async def call(self, operation: Operation[R], inner: Call) -> R: ...
