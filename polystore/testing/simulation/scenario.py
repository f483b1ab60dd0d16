"""What one seed is about: who takes part, and what goes wrong how often."""

from __future__ import annotations

import random
from typing import Literal

from msgspec.structs import replace

from polystore.model import Value

CRASHPOINTS = (
    "write.committed",
    "lane.taken",
    "lane.settled",
    "delivery.applied",
    "delivery.applied.search",
    "delivery.applied.vectors",
    "delivery.applied.graph",
    "delivery.applied.cache",
    "delivery.park",
    "relay.claimed",
    "relay.loaded",
    "retry.loaded",
    "retry.settled",
    "embed.stored",
    "backfill.step",
    "expiry.committed",
    "fact.spilled",
    "spill.taken",
    "spill.delivered",
    "drain",
)
"""Where production code calls `Env.crashpoint`; the names of copies are the simulation's."""
REPAIRS = ("repair.found", "repair.owed")
"""The same, in seeds in which copies are corrupted."""
MOVES = ("move.filled", "move.compared", "move.remember", "move.remembered", "move.gone_over", "rebuild.emptied")
"""The same, in seeds in which a copy moves."""
PASSED_TOO = (
    *REPAIRS,
    *MOVES,
    "delivery.applied.words",
    "delivery.applied.search~2",
    "delivery.applied.documents",
)
"""At homes that cannot commit; no seed ends a process just there, so that all keep their histories."""


class Scenario(Value, frozen=True):
    """Drawn from a seed. Chances are per call, amounts per seed."""

    seed: int
    processes: int
    three_copies: bool
    operations: int
    pause_s: float
    """Mean pause of a writer between two operations."""
    fault: float
    """Chance of each kind of fault of a call."""
    disturbances: int
    """Kills, pauses, outages, cut links and departures."""
    poison: bool
    embedder: Literal["inline", "slow", "flaky"]
    queue_max: int
    batch_max: int
    crash_at: str
    crash_hit: int
    """The process that passes `crash_at` for the `crash_hit`th time dies there."""
    preloaded: bool
    """The home has records from before the copies were there: they are filled in while all goes on."""

    reconfigured: bool
    """One copy, and the cache, are taken out of the configuration for a while, and come back with what they held."""
    cached: bool
    """Reads by key ask a cache, which forgets values and controls at any time."""
    journaled: Literal["", "durable", "forgetful"] = ""
    """Notes live in a store that cannot commit, durable or not; what is the home of the others is their journal."""
    unguarded: bool = False
    """One copy cannot compare and write in one step."""
    corrupted: bool = False
    """Copies are made wrong behind everybody's back, and compared with their homes by and by."""
    grown: Literal["", "added", "rebuilt"] = ""
    """A copy moves while everything goes on: to a store that is added to the configuration, or to its other place."""

    @classmethod
    def draw(cls, seed: int) -> Scenario:
        r = random.Random(f"scenario {seed}")
        return (
            cls(
                seed=seed,
                processes=r.choice((2, 2, 3)),
                three_copies=r.random() < 0.6,
                operations=r.randint(60, 100),
                pause_s=r.choice((0.05, 0.2, 0.4)),
                fault=r.choice((0.0, 0.004, 0.01, 0.02)),
                disturbances=r.randint(1, 5),
                poison=r.random() < 0.3,
                embedder=r.choice(("inline", "slow", "flaky")),
                queue_max=r.choice((6, 40, 1000)),
                batch_max=r.choice((2, 5, 50)),
                crash_at=CRASHPOINTS[seed % len(CRASHPOINTS)],
                crash_hit=r.choice((1, 2, 5, 20)),
                preloaded=r.random() < 0.25,
                reconfigured=r.random() < 0.25,
                cached=r.random() < 0.6,
                # Drawn apart: the other seeds keep their histories.
                journaled=random.Random(f"journaled {seed}").choice(("", "", "", "durable", "durable", "forgetful")),
                unguarded=random.Random(f"unguarded {seed}").random() < 0.25,
            )
            .after_all(random.Random(f"corrupted {seed}"))
            .growing(random.Random(f"grown {seed}"))
        )

    def growing(self, r: random.Random) -> Scenario:
        """Growing or not; not where copies come and go, or are made wrong, anyhow. In half of these seeds a process
        dies in the middle of the move. Writes go on for longer. A copy that refuses records is not to be rebuilt."""
        if self.reconfigured or self.corrupted or r.random() > 0.1:
            return self
        grown: Literal["added", "rebuilt"] = "added" if self.seed % 3 else "rebuilt"
        return replace(
            self,
            grown=grown,
            preloaded=True,
            operations=r.randint(60, 100),
            pause_s=r.choice((0.5, 1.0)),
            poison=self.poison and grown == "added",
            crash_at=r.choice((self.crash_at, r.choice(MOVES))),
            crash_hit=r.choice((1, 2)),
        )

    def after_all(self, r: random.Random) -> Scenario:
        """Corrupted or not; not where a copy has no guard, which is repaired without that. In half of the corrupted
        seeds the process dies that repairs."""
        if self.unguarded or r.random() > 0.2:
            return self
        return replace(self, corrupted=True, crash_at=r.choice((self.crash_at, *REPAIRS)))
