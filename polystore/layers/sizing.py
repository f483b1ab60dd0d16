"""How many changes a store takes in one call."""

from __future__ import annotations

from typing import TypeVar

from polystore.errors import StoreTimeout
from polystore.operations import Call, Operation

R = TypeVar("R")


class Sizing:
    """`most` changes in one `apply`: half of what did not end before its deadline, twice as many after so many that
    did, never more than at first. A store that has become slow would else be sent the same too large batch for ever.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._bound = most

    async def call(self, operation: Operation[R], inner: Call) -> R:
        size = len(operation.args[0])
        try:
            result = await inner(operation)
        except StoreTimeout:
            self.most = max(1, min(self.most, size) // 2)
            raise
        if size >= self.most:
            self.most = min(self._bound, 2 * self.most)
        return result
