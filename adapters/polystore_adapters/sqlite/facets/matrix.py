"""Vectors in memory as one numpy matrix. Imported only where numpy is installed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from polystore.facets import Metric

_UNIT = 2.0**-24
"""Half a unit in the last place of a 32-bit float: the relative error of one rounding."""
_SMALL = 2.0**-126
"""The smallest normal 32-bit float: below it the error of a rounding is absolute."""
_LARGE = 2.0**127
"""Inner products above it may overflow 32 bits."""

_FEW = 8
"""Below one in so many rows, copying those that are asked about costs less than the products of all."""


class Matrix:
    """Rows of 32-bit floats, dense, in any order: a removed row is replaced by the last one. For cosine the rows have
    length 1, and the query too."""

    def __init__(self, metric: Metric, dimension: int) -> None:
        self._metric: Metric = metric
        self._rows = np.empty((0, dimension), np.float32)
        self._half_squares = np.empty(0, np.float32)  # l2 only: |row|^2 / 2
        self._longest = 0.0  # the largest length that a row had
        self._rids: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rids)

    def reserve(self, count: int) -> None:
        """Make room for so many rows in all. The memory is extended where it lies if the system can."""
        if count > len(self._rows):
            # No view of these arrays outlives a method, so nothing can point to the old memory.
            self._rows.resize((count, self._rows.shape[1]), refcheck=False)
            self._half_squares.resize(count, refcheck=False)

    def put(self, rids: Sequence[int], vectors: Sequence[bytes]) -> None:
        """Add or replace the vectors of these rids; none of them twice. Each has the matrix's dimension."""
        new = [rid for rid in rids if rid not in self._place]
        self._place.update(zip(new, range(len(self._rids), len(self._rids) + len(new)), strict=True))
        self._rids += new
        self.reserve(len(self._rids))
        exact = self._exact(vectors)
        squares = np.einsum("ij,ij->i", exact, exact)
        lengths = np.sqrt(squares)
        places = [self._place[rid] for rid in rids]
        if self._metric == "cosine":
            exact /= np.where(lengths > 0, lengths, 1)[:, None]
            self._longest = 1.0
        else:
            self._longest = max(self._longest, float(lengths.max(initial=0)))
        self._rows[places] = exact
        with np.errstate(over="ignore"):  # `nearest` sees by the lengths when 32 bits are not enough
            self._half_squares[places] = squares / 2

    def drop(self, rids: Sequence[int]) -> None:
        """Remove these; unknown ones are no error."""
        for rid in rids:
            place = self._place.pop(rid, None)
            if place is None:
                continue
            last = self._rids.pop()
            if last != rid:
                end = len(self._rids)
                self._rids[place], self._place[last] = last, place
                self._rows[place], self._half_squares[place] = self._rows[end], self._half_squares[end]

    def nearest(self, query: array[float], allowed: Sequence[int] | None, limit: int) -> list[int]:
        """The rids of the `limit` nearest rows, and of some more: all that 32-bit arithmetic cannot tell from them.

        With u = 2^-24, an inner product of n terms is off by at most about n u |a| |b| (Higham, Accuracy and Stability
        of Numerical Algorithms, 2nd ed., section 3.1); a few more u are the roundings of the inputs and of the sum.
        Every row whose coarse value is within twice that of the last of the `limit` best may belong to them.
        """
        wanted = np.array(query, np.float64)
        length = float(np.sqrt(wanted @ wanted))
        if self._metric == "cosine":
            wanted /= length or 1.0
            length = 1.0
        places = None
        if allowed is not None:
            places = np.array([self._place[rid] for rid in allowed if rid in self._place], np.intp)
        count = len(self._rids) if places is None else len(places)
        largest = length * self._longest + (self._longest**2 / 2 if self._metric == "l2" else 0)
        if count <= limit or largest > _LARGE:
            return self._rids[:] if places is None else [self._rids[place] for place in places.tolist()]
        coarse = self._coarse(wanted.astype(np.float32), places)
        error = (len(query) + 8) * (_UNIT * largest + _SMALL)
        last = float(np.partition(coarse, count - limit)[count - limit])
        near = np.flatnonzero(coarse >= last - 2 * error)
        return [self._rids[place] for place in (near if places is None else places[near]).tolist()]

    def _coarse(self, query: npt.NDArray[np.float32], places: npt.NDArray[np.intp] | None) -> npt.NDArray[np.float32]:
        """What orders the rows, in 32 bits: of these places, or of all rows."""
        few = places is not None and _FEW * len(places) < len(self._rids)
        chosen = places if few else slice(len(self._rids))
        coarse: npt.NDArray[np.float32] = self._rows[chosen] @ query
        if self._metric == "l2":
            coarse -= self._half_squares[chosen]
        return coarse if few or places is None else coarse[places]

    def scores(self, query: array[float], vectors: Sequence[bytes]) -> list[float]:
        """The exact scores of these vectors, in 64 bits; equal vectors have equal scores."""
        wanted = np.array(query, np.float64)
        exact = self._exact(vectors)
        if self._metric == "l2":
            scores = -np.sqrt(np.square(exact - wanted).sum(axis=1))
        else:
            scores = (exact * wanted).sum(axis=1)
        if self._metric == "cosine":
            lengths = np.sqrt(np.square(exact).sum(axis=1) * np.square(wanted).sum())
            scores /= np.where(lengths > 0, lengths, 1)
        return scores.tolist()  # type: ignore[no-any-return]

    def _exact(self, vectors: Sequence[bytes]) -> npt.NDArray[np.float64]:
        return np.frombuffer(b"".join(vectors), "<f4").reshape(-1, self._rows.shape[1]).astype(np.float64)
