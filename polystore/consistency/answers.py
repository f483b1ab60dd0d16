"""What is said of a write: which copies its caller waits for, what its result tells, and what its copies are owed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polystore.consistency.embedding import Embedders
from polystore.errors import ConfigurationError
from polystore.model import Change, Committed, Placement, Write, Written
from polystore.results import Ack, StoreStatus, Token, WriteResult
from polystore.store import Store


class Answers:
    """The answers of one consistency manager."""

    def __init__(self, stores: Mapping[str, Store], placements: Mapping[str, Placement], embedders: Embedders) -> None:
        self._stores = stores
        self._placements = placements
        self._embedders = embedders
        self._statuses: dict[tuple[str, bool], Mapping[str, StoreStatus]] = {}

    def wanted(self, ack: Ack, timeout_s: float, etypes: set[str]) -> frozenset[str]:
        """The copies to wait for, and the embedders that work after the commit for a home with vectors of its own.
        Raises ConfigurationError."""
        if type(timeout_s) not in (int, float) or not timeout_s >= 0:
            raise ConfigurationError("ack_timeout_s= takes a number of seconds that is not negative")
        names = {name for etype in etypes for name in self._placements[etype].copies()}
        if ack in ("applied", "visible"):
            return frozenset(names.union(*map(self.later, etypes)))
        if isinstance(ack, str) or not isinstance(ack, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"ack={ack!r}: use 'committed', 'applied', 'visible', or a list of store names")
        for name in ack:
            if name not in self._stores:
                raise ConfigurationError(f"ack= names the unknown store {name!r}; stores: {', '.join(self._stores)}")
        return frozenset(ack) & names

    def later(self, etype: str) -> set[str]:
        """The pseudo-targets that complete a record at a home which serves its vectors itself."""
        placement = self._placements[etype]
        own = placement.facets.get("vector") == placement.authority
        return self._embedders.pseudo_targets(etype) if own else set()

    def results(
        self,
        home: str,
        writes: Sequence[Write],
        committed: Committed,
        statuses: Mapping[int, Mapping[str, StoreStatus]],
    ) -> list[WriteResult]:
        """`statuses`: what else is known of the stores, by the number of the write."""
        results: list[WriteResult] = []
        for i, (write, written) in enumerate(zip(writes, committed.written, strict=True)):
            stores = self._of_commit(write.key.etype, bool(written.version))
            if i in statuses:
                stores = dict[str, StoreStatus]({**stores, **statuses[i]})
            token = Token.of(home, [(write.h, written.version)]) if written.version else Token("")
            version = written.version or None
            results.append(WriteResult(write.key.id, version, written.existed, token, stores, written.changed))
        return results

    def forget(self, etype: str) -> None:
        """Its copies are others now."""
        self._statuses = {one: stores for one, stores in self._statuses.items() if one[0] != etype}

    def _of_commit(self, etype: str, exists: bool) -> Mapping[str, StoreStatus]:
        """What a commit alone says of each store: how far a version got is not known without asking, also when it was
        not written now, or is not owed to a copy that another process took out of service. Results share the answer."""
        stores = self._statuses.get((etype, exists))
        if stores is None:
            placement = self._placements[etype]
            made: dict[str, StoreStatus] = {placement.authority: "committed"}
            for name in placement.copies():
                made[name] = "pending" if exists else "applied"
            stores = self._statuses[etype, exists] = made
        return stores


def change_of(write: Write, written: Written) -> Change:
    """What the copies are owed after a write."""
    return Change(
        write.key,
        written.version,
        write.h,
        written.body,
        written.hash,
        written.updated_us,
        write.vectors if write.kind != "update" else {},
        written.expires_us,
    )


def changes_of(writes: Sequence[Write], committed: Committed) -> dict[int, Change]:
    """What changed, by the place of the write."""
    return {
        i: change_of(write, written)
        for i, (write, written) in enumerate(zip(writes, committed.written, strict=True))
        if written.version and written.changed
    }
