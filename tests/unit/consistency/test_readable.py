"""Which copies are asked."""

from __future__ import annotations

import pytest

from polystore.consistency.copies import check_readable
from polystore.errors import Unavailable
from polystore.model import TargetRow


def row(status: str) -> list[TargetRow]:
    return [TargetRow("note", "search", 0, status, data_id="x")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "whole", "refused"),
    [
        ("active", True, ""),
        ("active", False, ""),
        ("backfilling", True, "still being filled"),
        ("backfilling", False, ""),
        ("off", True, "another process"),
        ("off", False, "another process"),  # nothing is delivered to it any more
    ],
)
def test_what_is_out_of_service_is_never_asked(status: str, whole: bool, refused: str) -> None:
    if not refused:
        check_readable(row(status), "note", "search", whole=whole)
        return
    with pytest.raises(Unavailable, match=refused):
        check_readable(row(status), "note", "search", whole=whole)
