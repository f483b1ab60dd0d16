"""Every error that polystore raises.

    PolystoreError
    ├── ConfigurationError        a setting, URL, role or declaration that cannot work; says how to mend it
    │   └── EntityError           a class that cannot be an entity; names class, field, reason, mend
    ├── SchemaMismatch            stored schema and declared entity differ in a way that is not migrated by itself
    ├── InvalidFilter             a condition that does not fit the entity; raised before any I/O
    ├── InvalidData               a value that must not be written; raised before any I/O
    │   ├── ValueTooLarge
    │   ├── DimensionMismatch
    │   └── DecodeError           a stored value that cannot be read: corrupt is never "missing"
    ├── UnsupportedOperation      the capability is absent; names the stores that have it; raised before any I/O
    ├── NotFound
    ├── Conflict
    │   ├── VersionConflict       the record is at another version than expected (`actual`)
    │   ├── AlreadyExists
    │   └── IntegrityViolation    a unique value is taken by another record
    ├── WorkLimitExceeded         an answer would take more work than one call may do; ask a narrower question
    ├── Backpressure              the backlog is at its hard limit; nothing was written; try again later
    ├── StalenessTimeout          a read with `after=` could not reach the token in time
    └── StoreError                a store spoke (`store`, `operation`, `key`)
        ├── PermissionDenied
        ├── StoreCorrupt          the store answers, but what it holds cannot be trusted
        ├── StoreFull             no room left; nothing of this call was written
        ├── Unavailable           nothing was written; worth another try (`retry_after_s`)
        │   ├── StoreTimeout
        │   ├── RateLimited
        │   └── CircuitOpen       polystore itself stopped asking for a moment
        └── OutcomeUnknown        the call may or may not have been carried out

Messages name the store, the operation, the key and what to do next; they never carry a value, a URL or a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # everything else in this module is an error
    from collections.abc import Iterable


class PolystoreError(Exception):
    """Base of all errors of polystore."""

    retryable: bool = False
    """True when the same call may succeed later without a change by the caller."""
    outcome_unknown: bool = False
    """True when the call may have been carried out; only idempotent operations are then tried again."""


class ConfigurationError(PolystoreError):
    """A setting, URL, role or declaration that cannot work. The message says how to mend it."""


class EntityError(ConfigurationError):
    """A class that cannot be an entity. The message names the class, the field, the reason and the mend."""


class SchemaMismatch(PolystoreError):
    """The stored schema and the declared entity differ in a way that polystore does not migrate by itself."""


class InvalidFilter(PolystoreError):
    """A condition names an unknown field or compares it with a value of another type. Raised before any I/O."""


class InvalidData(PolystoreError):
    """A value that must not be written. Raised before any I/O: nothing was written."""


class ValueTooLarge(InvalidData):
    """A value, a key or a batch exceeds the limit of a store it would have to go to."""


class DimensionMismatch(InvalidData):
    """A vector has another number of components than its field declares."""


class DecodeError(InvalidData):
    """A stored value cannot be read back as its declared type."""


class UnsupportedOperation(PolystoreError):
    """No configured store can do this. Raised before any I/O; names the stores or the declaration that could."""


class NotFound(PolystoreError):
    """No live record has this key."""


class Conflict(PolystoreError):
    """Another write got there first; nothing was written."""


class VersionConflict(Conflict):
    """The record is at version `actual`, not at the expected one."""

    def __init__(self, message: str, *, actual: int) -> None:
        super().__init__(message)
        self.actual = actual


class AlreadyExists(Conflict):
    """`create` found a live record under the key."""


class IntegrityViolation(Conflict):
    """A unique value is held by another record of the same type and tenant."""


class WorkLimitExceeded(PolystoreError):
    """The whole answer would take more work than one call may do. An incomplete one is never given: ask a narrower
    question."""


class Backpressure(PolystoreError):
    """The backlog is at its hard limit. Nothing was written; try again later."""

    retryable = True


class StalenessTimeout(PolystoreError):
    """A read with `after=` did not reach the token's state within its time. `lost`: the keys of records, of a read of
    several, that a home which cannot commit does not hold as its journal has them."""

    retryable = True
    lost: tuple[object, ...] = ()


class StoreError(PolystoreError):
    """A store answered with an error, or did not answer.

    `store` is the configured name, `operation` the verb, `key` the record's id where one record is concerned.
    """

    def __init__(self, message: str, *, store: str = "", operation: str = "", key: str | None = None) -> None:
        super().__init__(message)
        self.store = store
        self.operation = operation
        self.key = key

    def __str__(self) -> str:
        where = " ".join(part for part in (self.store, self.operation) if part)
        key = f" key {self.key!r}" if self.key is not None else ""
        text = super().__str__()
        return f"{where}{key}: {text}" if where or key else text


class PermissionDenied(StoreError):
    """The store refuses the credentials or the right."""


class StoreCorrupt(StoreError):
    """The store's own data is damaged, truncated, or not what polystore wrote."""


class StoreFull(StoreError):
    """The store has no room left. Nothing of this call was written."""

    retryable = True


class Unavailable(StoreError):
    """The store cannot be reached or refuses work for now. Nothing was written."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        store: str = "",
        operation: str = "",
        key: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, store=store, operation=operation, key=key)
        self.retry_after_s = retry_after_s


class StoreTimeout(Unavailable):
    """The store did not answer within the deadline of a call that changes nothing."""


class RateLimited(Unavailable):
    """The store asks to slow down."""


class CircuitOpen(Unavailable):
    """polystore stopped asking this store for a moment because it kept failing."""


class OutcomeUnknown(StoreError):
    """The call was sent and no answer came: written or not. With an `op_id` calling again cannot apply it twice."""

    retryable = True
    outcome_unknown = True


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """For the middle of a message: ", did you mean 'x'?" when one of the known names is near, else nothing."""
    from difflib import get_close_matches  # needed only here, and slow to import

    close = get_close_matches(name, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else ""
