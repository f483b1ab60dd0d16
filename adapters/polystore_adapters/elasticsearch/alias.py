"""The plain name of an entity's index, for others than polystore: an alias of the index in the place that serves."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.errors import SchemaMismatch
from polystore_adapters.elasticsearch.server import Document, Server


async def take(server: Server, etypes: Sequence[str], *, create: bool) -> None:
    """See `SupportsAlias.take_alias`. One request changes all of them."""
    wanted = {server.alias(etype): server.index(etype) for etype in etypes}
    there: Document = await server.ask("GET", f"/{server.options.alias_prefix}*/_alias")
    taken = sorted(wanted.keys() & there.keys())
    if taken:
        raise SchemaMismatch(
            f"{', '.join(taken)}: an index has the name that is to be an alias; delete it, or choose another prefix"
        )
    actions: list[Document] = []
    for alias, index in wanted.items():
        standing = {one for one, about in there.items() if alias in about["aliases"]}
        if standing != {index}:
            actions += [{"remove": {"index": one, "alias": alias}} for one in sorted(standing - {index})]
            actions.append({"add": {"index": index, "alias": alias}})
    if actions and not create:
        names = ", ".join(action["add"]["alias"] for action in actions if "add" in action)
        raise SchemaMismatch(
            f"the alias {names} does not stand for the index that serves; run `polystore init`, or open it with the "
            "right to create"
        )
    if actions:
        await server.ask("POST", "/_aliases", {"actions": actions})
