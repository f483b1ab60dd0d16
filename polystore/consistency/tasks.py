"""What the manager's queue carries."""

from __future__ import annotations

from typing import Literal

import msgspec

from polystore.model import Change


class SyncTask(msgspec.Struct, frozen=True, gc=False):
    """Bring the copies in `targets` (a mask of the type's bits) to `change`.

    kind: propagate (fresh from a commit) or reconcile (recovered from the outbox, reloaded). `version` is the CLAIMED
    outbox version, which settle removes; `change.version` is what was loaded and may be newer. `solo`: apply alone,
    earlier owners of this row died with it.
    """

    kind: Literal["propagate", "reconcile"]
    home: str
    version: int
    change: Change
    targets: int
    solo: bool = False
