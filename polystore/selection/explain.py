"""A placement in words, and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from polystore.model import Considered, Placement
from polystore.selection.remembered import Remembered


def explanation(of: Placement | Remembered) -> str:
    """The placement as lines of text: rule, home, facets, why, why not the others, cost, what changes, advice."""
    placement = of.placement if isinstance(of, Remembered) else of
    lines = [placement.etype, f"  rule       {placement.rule}", *_labelled("why", placement.why)]
    chosen = {one.role: one.reason for one in placement.considered if one.chosen}
    lines += _labelled("home", [_with_reason(placement.home, chosen.get("home", ""))])
    if placement.journal:
        keeps = "versions and whole records" if placement.whole else "versions, and bodies until the home has them"
        lines += _labelled("journal", [_with_reason(f"{placement.journal} ({keeps})", chosen.get("journal", ""))])
    for facet, store in placement.facets.items():
        kind = "home" if store == placement.home else "journal" if store == placement.journal else "copy"
        lines += _labelled(facet, [_with_reason(f"{store} ({kind})", chosen.get(facet, ""))])
    for facet, store in placement.upcoming.items():
        lines += _labelled("moves", [f"{facet}: to {store}, when it is complete; {placement.facets[facet]} serves"])
    for facet, store in placement.leaving.items():
        lines += _labelled("moves", [f"{facet}: from {store}, until every process has gone over"])
    for facet, store in placement.previous.items():
        lines += _labelled("kept", [f"{facet}: {store}, as it was before the rebuild"])
    for role, store in placement.beside.items():
        lines += _labelled(role, [_with_reason(f"{store} (beside the records)", chosen.get(role, ""))])
    if placement.cache:
        lines += _labelled("cache", [_with_reason(placement.cache, chosen.get("cache", ""))])
    lines += _labelled("not", _passed_over(placement.considered))
    if placement.cost:
        lines += _labelled("cost", [part.rstrip(".") for part in placement.cost.split(". ")])
    if isinstance(of, Remembered):
        lines += _labelled("to fill", [f"{name}: a new copy, filled from the home" for name in sorted(of.backfill)])
        lines += _labelled("to fill", [f"{facet}: at the home, for existing records" for facet in sorted(of.fill)])
        lines += _labelled("to end", [f"{name}: no copy any more" for name in sorted(of.dropped)])
        lines += _labelled("advice", of.advice)
    return "\n".join(lines)


def _labelled(label: str, texts: Sequence[str]) -> list[str]:
    return [f"  {label if i == 0 else '':<10} {text}" for i, text in enumerate(texts)]


def _with_reason(store: str, reason: str) -> str:
    return f"{store}: {reason}" if reason else store


def _passed_over(considered: Sequence[Considered]) -> list[str]:
    """Why not the others; stores that one reason turns down stand in one line."""
    stores: dict[tuple[str, str], list[str]] = {}
    for one in considered:
        if not one.chosen:
            stores.setdefault((one.role, one.reason), []).append(one.store)
    return [
        f"{', '.join(names)} for {role}: {reason}" if role != "rule" else f"{', '.join(names)} (rule {reason})"
        for (role, reason), names in stores.items()
    ]


def as_builtins(of: Placement | Remembered) -> dict[str, Any]:
    """The same as `explanation`, as dicts, lists and texts that JSON takes. Sets are sorted lists."""
    placement = of.placement if isinstance(of, Remembered) else of
    out: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(placement))
    out["copies"] = {store: sorted(facets) for store, facets in sorted(placement.copies().items())}
    if isinstance(of, Remembered):
        out |= {
            "changed": of.changed,
            "backfill": sorted(of.backfill),
            "fill": sorted(of.fill),
            "dropped": sorted(of.dropped),
            "advice": list(of.advice),
        }
    return out
