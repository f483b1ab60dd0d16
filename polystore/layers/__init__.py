"""Behaviour around every call to one store: one small file per layer, each one method over any operation.

Outermost first: tracing, metrics, turns, breaker, sizing, timeout, retry, limit. The timeout stands around the retries,
so that an operation has one deadline however often it is tried, and inside the turns: to wait for others is no failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from polystore.operations import Call, Layer, Operation
from polystore.protocols import Repository

R = TypeVar("R")


def stack(layers: Sequence[Layer], repository: Repository) -> Call:
    """The way to the repository through the layers, outermost first. Built once; each call then costs one coroutine
    per layer."""

    def bare(operation: Operation[R]) -> Awaitable[R]:
        return operation.run(repository)

    call: Call = bare
    for layer in reversed(layers):
        call = _around(layer, call)
    return call


def _around(layer: Layer, inner: Call) -> Call:
    def call(operation: Operation[R]) -> Awaitable[R]:
        return layer.call(operation, inner)

    return call
