"""InfluxDB 2: points of measures. `points.py` says where they lie and how they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polystore.env import Env
from polystore_adapters.influxdb.options import read_options
from polystore_adapters.influxdb.repository import InfluxRepository

__all__ = ["InfluxRepository", "connect"]


async def connect(url: str, options: Mapping[str, Any], env: Env) -> InfluxRepository:
    """`influxdb://:TOKEN@HOST:PORT/ORGANISATION[/BUCKET]`, `influxdbs://` with TLS; the bucket, "polystore" if none is
    named, is made by `prepare`. Options: see `Options`. Raises ConfigurationError."""
    return InfluxRepository(read_options(url, options), env)
