"""What a test captures is captured for that test: others of the same tables may come after it, in any order."""

from __future__ import annotations

import pytest

from polystore.sqlalchemy import capturing


@pytest.fixture(autouse=True)
def captured_for_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = capturing._guarded  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(capturing, "_guarded", dict(guarded))
