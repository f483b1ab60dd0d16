"""A user's web service: profiles of tenants, conditional updates, search with pages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, assert_type
from uuid import UUID

import msgspec

from polystore import (
    Collection,
    F,
    Found,
    FullText,
    Hit,
    HybridDataArchitecture,
    Needs,
    NotFound,
    Stored,
    Token,
    Unique,
    VersionConflict,
    WriteResult,
    entity,
    new_id,
)


@entity(needs=Needs(transactions=True))
class Profile(msgspec.Struct, kw_only=True):
    id: str = msgspec.field(default_factory=new_id)
    email: Annotated[str, Unique()]
    bio: Annotated[str, FullText()] = ""
    active: bool = True


class Application:
    def __init__(self, hda: HybridDataArchitecture) -> None:
        self.hda = hda

    def profiles(self, tenant: str) -> Collection[Profile]:
        return self.hda.tenant(tenant).collection(Profile)


@asynccontextmanager
async def lifespan(config: str) -> AsyncGenerator[Application]:
    async with HybridDataArchitecture.open(config, entities=[Profile]) as hda:
        yield Application(hda)


async def read(repo: Collection[Profile], id: str) -> tuple[int, dict[str, str]]:
    try:
        stored = await repo.load(id)
    except NotFound:
        return 404, {}
    assert_type(stored, Stored[Profile])
    return 200, {"email": stored.value.email, "etag": str(stored.version)}


async def patch(repo: Collection[Profile], id: str, bio: str, if_match: int, op: UUID) -> tuple[int, dict[str, str]]:
    try:
        result = await repo.update(id, {"bio": bio}, expect_version=if_match, op_id=op, ack=["full_text"])
    except VersionConflict as e:
        assert_type(e.actual, int)
        return 412, {}
    assert_type(result, WriteResult)
    return 200, {"token": result.token}


async def search(repo: Collection[Profile], q: str, cursor: str | None, after: Token | None) -> dict[str, Any]:
    page = await repo.search(q, where=F.active & (F.email != ""), limit=20, cursor=cursor, after=after)
    assert_type(page, Found[Hit[Profile]])
    return {"items": [(hit.value.bio, hit.score, hit.highlights) for hit in page], "next": page.cursor}


async def merge(first: WriteResult, second: WriteResult, repo: Collection[Profile]) -> Profile | None:
    return await repo.get(first.key, after=first.token | second.token)
