"""The two drivers: obstore for data, whose `list` says only a part of its types, and botocore, which has none."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store

if TYPE_CHECKING:  # only there
    from obstore import ObjectMeta

_exceptions: Any = importlib.import_module("botocore.exceptions")
ClientError: type[Exception] = _exceptions.ClientError
"""The server answered with an error, whose code `code_of` tells."""
BotoCoreError: type[Exception] = _exceptions.BotoCoreError
"""There was no answer."""
Config: Any = importlib.import_module("botocore.config").Config
get_session: Any = importlib.import_module("botocore.session").get_session


def code_of(error: Exception) -> str:
    """ "" for an error that is none of the server's."""
    response: Any = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def listed(
    store: S3Store, folder: str, *, offset: str | None = None, page: int = 1000
) -> AsyncIterator[Sequence[ObjectMeta]]:
    """The objects below a folder, behind `offset`, sorted, in pages."""
    stream: Any = obstore.list(store, folder, offset=offset, chunk_size=page)  # pyright: ignore[reportUnknownMemberType]
    return stream  # type: ignore[no-any-return]
