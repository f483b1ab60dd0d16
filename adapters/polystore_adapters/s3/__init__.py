"""S3 and MinIO: blobs as objects of a bucket. Read `objects.py` for where they lie; `repository.py` is the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polystore.env import Env
from polystore_adapters.s3.options import read_options
from polystore_adapters.s3.repository import S3Repository

__all__ = ["S3Repository", "connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> S3Repository:
    """`s3://BUCKET[/PREFIX]`, with what the environment says of AWS, or `minio://USER:PASSWORD@HOST:PORT/BUCKET[/PREFIX]`
    (`minios://` with TLS). The bucket is made by `prepare`. Options: see `Options`. Raises ConfigurationError."""
    return S3Repository(read_options(url, options), env)
