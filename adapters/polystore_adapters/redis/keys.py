"""What is kept under which key. The part in braces decides the slot of a cluster: the two keys of a cached name share
one, and so do a record and the index that it stands in. Parts are percent-encoded, so no character of a pattern or a
brace is ever in one."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from polystore.model import HASH_SPACE, Key

BUCKETS = 16
"""Parts of the records of a type and tenant, by ranges of their hashes: each is in one slot of a cluster."""
SPAN = HASH_SPACE // BUCKETS
"""Hashes of one bucket."""


def part(text: str) -> str:
    return quote(text, safe="")


@dataclass(frozen=True)
class Keys:
    """`prefix` keeps applications apart that share a database."""

    prefix: str

    def state(self, key: Key) -> str:
        return f"{self.prefix}:s:{{{part(key.tenant)}/{part(key.etype)}/{part(key.id)}}}"

    def states(self, etype: str, tenant: str) -> str:
        """The pattern of all values of a type and tenant."""
        return f"{self.prefix}:s:{{{part(tenant)}/{part(etype)}/*"

    def id_of(self, key: bytes) -> str:
        return unquote(key.decode().rpartition("/")[2].removesuffix("}"))

    def limit(self, key: Key) -> str:
        return f"{self.prefix}:l:{{{part(key.tenant)}/{part(key.etype)}/{part(key.id)}}}"

    def channel(self, tenant: str, name: str) -> str:
        return f"{self.prefix}:p:{{{part(tenant)}/{part(name)}}}"

    def cached(self, name: str) -> tuple[str, str]:
        """Value and control of a name that is `T/E/I` already."""
        return f"{self.prefix}:v:{{{name}}}", f"{self.prefix}:c:{{{name}}}"

    def caches(self, etype: str | None = None) -> str:
        """The pattern of both kinds of keys, of one entity or of all."""
        return f"{self.prefix}:[vc]:{{*" if etype is None else f"{self.prefix}:[vc]:{{*/{part(etype)}/*"

    def record(self, key: Key, h: int) -> tuple[str, str, str, str]:
        """The record, and the lists of its bucket."""
        index, expiring, ordered = self.index(key.etype, key.tenant, h // SPAN)
        return f"{self.prefix}:r:{_tag(index)}:{part(key.id)}", index, expiring, ordered

    def index(self, etype: str, tenant: str, bucket: int) -> tuple[str, str, str]:
        """Ids by their hashes, those that expire by when, and the keys in their order."""
        tag = f"{{{part(tenant)}/{part(etype)}/{bucket:x}}}"
        return f"{self.prefix}:i:{tag}", f"{self.prefix}:x:{tag}", f"{self.prefix}:k:{tag}"

    def about(self, etype: str) -> tuple[str, str]:
        """What is known of an entity: its schema and newest version; and its tenants."""
        return f"{self.prefix}:e:{{{part(etype)}}}", f"{self.prefix}:t:{{{part(etype)}}}"

    @property
    def data(self) -> str:
        """Who these data are: it goes with them."""
        return f"{self.prefix}:data"

    @property
    def run(self) -> str:
        """Which run of the server the cached values are of."""
        return f"{self.prefix}:run"


def _tag(key: str) -> str:
    return key[key.index("{") : key.index("}") + 1]
