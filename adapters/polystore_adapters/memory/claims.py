"""Which record of a memory server names which file."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.errors import IntegrityViolation, InvalidData
from polystore.model import Key, check_object_key

CONDEMNED_US = 86_400_000_000
"""How long a condemned key is remembered: longer than a write whose files were checked before can be under way."""


class FileClaims:
    """The files that records name or named. Every method is one atomic step."""

    def __init__(self) -> None:
        self.named: dict[str, Key] = {}
        self.files_of: dict[Key, set[str]] = {}
        self.released: dict[str, int] = {}
        """Since when no record names it."""
        self.condemned: dict[str, int] = {}

    def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool, now: int) -> list[bool]:
        may_go = [
            check_object_key(key) not in self.named and self.released.get(key, 0) <= now - released_us for key in keys
        ]
        if not only_ask:
            self.condemned = {key: since for key, since in self.condemned.items() if since > now - CONDEMNED_US}
            for key in (key for key, goes in zip(keys, may_go, strict=True) if goes):
                self.released.pop(key, None)
                self.condemned[key] = now
        return may_go


class DraftedClaims:
    """The claims of a commit before it is true."""

    def __init__(self, claims: FileClaims) -> None:
        self._claims = claims
        self._holders: dict[str, Key | None] = {}
        self._files_of: dict[Key, set[str]] = {}

    def claim(self, key: Key, files: set[str]) -> None:
        """The record names these files and no others. Raises IntegrityViolation, InvalidData."""
        claims = self._claims
        before = self._files_of.get(key, claims.files_of.get(key, set()))
        for file in files - before:
            if file in claims.condemned:
                raise InvalidData(f"{key.etype} {key.id!r}: the content of {file!r} is being removed; save it again")
            holder = self._holders[file] if file in self._holders else claims.named.get(file)
            if holder not in (None, key):
                raise IntegrityViolation(
                    f"{key.etype} {key.id!r}: another record names the file {file!r}; save the content once more"
                )
        self._holders.update(dict.fromkeys(before - files), **dict.fromkeys(files, key))
        self._files_of[key] = files

    def install(self, now_us: int) -> None:
        """Make them true. Cannot fail."""
        claims = self._claims
        for file, key in self._holders.items():
            if claims.named.pop(file, None) is not None and key is None:
                claims.released[file] = now_us
            if key is not None:
                claims.named[file] = key
                claims.released.pop(file, None)
        for key, files in self._files_of.items():
            claims.files_of[key] = files
            if not files:
                del claims.files_of[key]
