"""The numbers of the consistency manager. Sources: docs/explanation of the guarantees, and the notes below."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from polystore.errors import ConfigurationError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds. Raises ConfigurationError when the times contradict one another: a call must end before
    its batch, the batch before the worker counts as dead, and that before a living owner's rows are taken over."""

    queue_max: int = 10_000
    lanes: int = 8
    batch_max: int = 500
    call_timeout_s: float = 3.0
    batch_deadline_s: float = 4.0
    detach_s: float = 0.25
    detach_factor: float = 4.0
    poll_s: float = 1.0
    sweep_s: float = 10.0
    worker_dead_s: float = 5.0
    takeover_s: float = 60.0
    retry_base_s: float = 0.05
    retry_max_s: float = 30.0
    hard_fails_max: int = 3
    unknown_fails_max: int = 20
    unknown_age_s: float = 3600.0
    solo_claims: int = 5
    claims_max: int = 8
    backlog_soft: int = 50_000
    backlog_hard: int = 500_000
    awaken_spread_s: float = 5.0
    embed_timeout_s: float = 60.0
    backfill_chunk: int = 1_000
    import_lag_s: float = 1.0
    """How late the copies may be for an import to go on."""
    drain_s: float = 10.0
    tombstone_ttl_s: float = 7 * 86_400.0
    purge_s: float = 600.0
    spill_bytes_max: int = 256 << 20
    file_sweep_s: float = 3_600.0
    repair_wait_s: float = 30.0
    """How long a repair waits for a batch of records to be in their copy before it goes on without them."""
    reconcile_s: float = 900.0
    """How often a part of all records is compared with their copies, and repaired; 0: never."""
    reconcile_full_s: float = 86_400.0
    """In what time all parts are."""
    reconcile_rate_per_s: float = 2_000.0
    """The most records that are compared a second."""
    kept_s: float = 120.0
    """How long a journal keeps a body after a home that is not durable (`Limits.ack_durable`) was seen to hold it, and
    of how much time a copy that was restarted is brought everything once more."""
    look_s: float = 5.0
    """How often copies are asked whether they were restarted."""
    strict_bypass: bool = False
    """Whether a write of a type with cache="strict" goes on while its cache does not answer. Hits may then be older."""

    def __post_init__(self) -> None:
        ladder = (self.call_timeout_s, self.batch_deadline_s, self.worker_dead_s, self.takeover_s)
        if not all(a < b for a, b in pairwise(ladder)):
            raise ConfigurationError(
                "consistency settings: call_timeout_s < batch_deadline_s < worker_dead_s < takeover_s must hold, "
                f"not {' < '.join(map(str, ladder))}"
            )
        if not 0 <= self.reconcile_s <= self.reconcile_full_s or self.reconcile_rate_per_s <= 0:
            raise ConfigurationError(
                "consistency settings: reconcile_s must be at most reconcile_full_s, and reconcile_rate_per_s above 0"
            )
        if self.tombstone_ttl_s <= 10 * (self.takeover_s + self.call_timeout_s):
            raise ConfigurationError(
                "consistency settings: tombstone_ttl_s must be more than 10 times takeover_s + call_timeout_s, so that "
                "no late write can outlive the tombstone that holds it off"
            )
