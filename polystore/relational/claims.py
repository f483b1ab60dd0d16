"""Which record of a home names which content, decided with the commits of one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from polystore.errors import IntegrityViolation, InvalidData
from polystore.model import Key


class FileClaims:
    """The files that the records name. `files_of`: those of the records that are written; `stored`: state (named,
    released, condemned) and holder of the files that are named now, both as they stand under the locks."""

    def __init__(self, files_of: Mapping[Key, frozenset[str]], stored: Mapping[str, tuple[str, Key | None]]) -> None:
        self._files_of = dict(files_of)
        self._stored = stored
        self._decided: list[tuple[Key, frozenset[str], frozenset[str]]] = []
        self.holders: dict[str, Key | None] = {}
        """What is to be written: file -> the record that names it; None: it is released."""

    def claim(self, key: Key, files: frozenset[str]) -> None:
        """The record names these files and no others. Raises IntegrityViolation, InvalidData."""
        before = self._named_by(key)
        for file in files - before:
            if self._holder(key, file) not in (None, key):
                raise IntegrityViolation(
                    f"{key.etype} {key.id!r}: another record names the file {file!r}; save the content once more"
                )
        self._decided.append((key, before, files))
        self._set(key, before, files)

    def _holder(self, key: Key, file: str) -> Key | None:
        """Who names the file, as the claims so far leave it."""
        if file in self.holders:
            return self.holders[file]
        state, holder = self._standing(file)
        if state == "condemned":
            raise InvalidData(f"{key.etype} {key.id!r}: the content of {file!r} is being removed; save it again")
        return holder if state == "named" else None

    def _named_by(self, key: Key) -> frozenset[str]:
        return self._files_of.get(key, frozenset())

    def _standing(self, file: str) -> tuple[str, Key | None]:
        """State and holder, whatever the claims so far leave of it."""
        return self._stored.get(file, ("", None))

    def _set(self, key: Key, before: frozenset[str], after: frozenset[str]) -> None:
        self.holders.update(dict.fromkeys(before - after))
        self.holders.update(dict.fromkeys(after, key))
        self._files_of[key] = after

    @property
    def position(self) -> int:
        """Where `back` may return to."""
        return len(self._decided)

    def back(self, position: int) -> None:
        """Take back the claims since then: their commit failed."""
        while len(self._decided) > position:
            key, before, after = self._decided.pop()
            self._set(key, after, before)
