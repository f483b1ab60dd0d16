"""What a URL and its options say."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from polystore.errors import ConfigurationError
from polystore_adapters.influxdb.driver import Client

SCHEMES = {"influxdb": "http", "influxdbs": "https"}
BUCKET = "polystore"
RETENTION_MIN_S = 3600
"""Least retention of a bucket; for less the server answers 500."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """token: who asks; the URL's if not given. retention_s: of the bucket that `prepare` makes, 0 for ever; a bucket
    that is there keeps its own. ca_file: the certificates to trust, as a PEM file. connections: at the same time.
    timeout_s: of one request. downsample_s: how wide the windows are whose averages the server keeps in the bucket
    downsample_bucket ("<bucket>-averages" if not given), for downsample_retention_s, 0 for ever."""

    token: str | None = None
    retention_s: int = 0
    ca_file: str | None = None
    connections: int = 16
    timeout_s: float = 30.0
    downsample_s: int | None = None
    downsample_bucket: str | None = None
    downsample_retention_s: int = 0


@dataclass(frozen=True)
class Place:
    """A bucket of an organisation, and how to reach it."""

    server: str
    organisation: str
    bucket: str
    options: Options

    @property
    def averages(self) -> str:
        """The bucket of what a task of the server makes."""
        return self.options.downsample_bucket or f"{self.bucket}-averages"

    def client(self) -> Any:
        """Made in a running event loop."""
        given = self.options
        more: dict[str, Any] = {}
        if given.ca_file is not None:
            try:
                more["ssl_context"] = ssl.create_default_context(cafile=given.ca_file)
            except OSError as e:
                raise ConfigurationError(f"the option ca_file cannot be read ({e.strerror})") from None
        return Client(
            url=self.server,
            token=given.token,
            org=self.organisation,
            timeout=int(given.timeout_s * 1000),
            connection_pool_maxsize=given.connections,
            **more,
        )


def read_options(url: str, options: Mapping[str, Any]) -> Place:
    """Raises ConfigurationError."""
    try:
        given = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(
            f"options of an InfluxDB store: {e}; known: {', '.join(Options.__struct_fields__)}"
        ) from None
    parts = urlsplit(url)
    organisation, _, bucket = parts.path.strip("/").partition("/")
    if parts.scheme not in SCHEMES or not parts.hostname or not organisation or parts.query or parts.fragment:
        raise ConfigurationError("influxdb://:TOKEN@HOST:PORT/ORGANISATION[/BUCKET]")
    if given.connections < 1 or given.timeout_s <= 0 or given.retention_s < 0:
        raise ConfigurationError(
            "options of an InfluxDB store: connections and timeout_s are above 0, retention_s from 0"
        )
    if (given.downsample_s is not None and given.downsample_s < 1) or given.downsample_retention_s < 0:
        raise ConfigurationError("options of an InfluxDB store: downsample_s is from 1, downsample_retention_s from 0")
    if min(one for one in (given.retention_s, given.downsample_retention_s, RETENTION_MIN_S) if one) < RETENTION_MIN_S:
        raise ConfigurationError(
            f"options of an InfluxDB store: retention_s and downsample_retention_s are 0, or from {RETENTION_MIN_S}: "
            "the server makes no bucket that keeps less than an hour"
        )
    place = Place("", "", unquote(bucket) or BUCKET, given)
    if place.averages == place.bucket:
        raise ConfigurationError(
            "options of an InfluxDB store: downsample_bucket is the bucket of the points; averages want another one"
        )
    if given.token is None and parts.password is not None:
        given = msgspec.structs.replace(given, token=unquote(parts.password))
    if not given.token:
        raise ConfigurationError("an InfluxDB store needs a token: influxdb://:TOKEN@HOST:PORT/..., or option token")
    server = f"{SCHEMES[parts.scheme]}://{parts.netloc.rpartition('@')[2]}"
    return Place(server, unquote(organisation), unquote(bucket) or BUCKET, given)
