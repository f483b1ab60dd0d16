"""How near vectors are to one, exactly: for stores that only keep them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from operator import mul
from typing import Any

from polystore.facets import Metric

Scorer = Callable[[Metric, bytes, Sequence[bytes]], Sequence[float]]
"""The metric, the vector asked for, and the others, packed as 32-bit floats; larger scores are nearer."""


def scorer() -> Scorer:
    """With numpy where it is installed."""
    return scores_by_hand if find_spec("numpy") is None else scores_by_numpy


def scores_by_numpy(metric: Metric, query: bytes, vectors: Sequence[bytes]) -> Sequence[float]:
    """The exact scores in 64 bits; equal vectors have equal scores."""
    import numpy as np

    wanted = np.frombuffer(query, "<f4").astype(np.float64)
    rows = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, len(wanted)).astype(np.float64)
    scores = -np.sqrt(np.square(rows - wanted).sum(axis=1)) if metric == "l2" else (rows * wanted).sum(axis=1)
    if metric == "cosine":
        lengths = np.sqrt(np.square(rows).sum(axis=1) * np.square(wanted).sum())
        scores /= np.where(lengths > 0, lengths, 1)
    found: list[float] = scores.tolist()
    return found


def scores_by_hand(metric: Metric, query: bytes, vectors: Sequence[bytes]) -> Sequence[float]:
    """The same without numpy."""
    wanted = _unpacked(query)
    return [_SCORES[metric](wanted, _unpacked(one)) for one in vectors]


def _unpacked(packed: bytes) -> array[float]:
    values = array("f")
    values.frombytes(packed)
    return values


def _cosine(a: array[float], b: array[float]) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return math.fsum(map(mul, a, b)) / length if length else 0.0


_SCORES: Mapping[Metric, Callable[[Any, Any], float]] = {
    "cosine": _cosine,
    "l2": lambda a, b: -math.dist(a, b),
    "ip": lambda a, b: math.fsum(map(mul, a, b)),
}
