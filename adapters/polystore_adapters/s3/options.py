"""What a URL and its options say, and the two clients made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec
from obstore.store import S3Store

from polystore.errors import ConfigurationError, InvalidData
from polystore.model import check_object_key
from polystore_adapters.s3.driver import Config, get_session

if TYPE_CHECKING:  # only there
    from obstore.store import ClientConfig, S3Config

SCHEMES = ("s3", "minio", "minios")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """access_key, secret_key, session_token: who asks; not given: the URL, else what the environment says of AWS.
    endpoint: the address of a server that is not AWS. region. ca_file: the certificates to trust, as a PEM file.
    virtual_hosts: the bucket is a part of the host's name, as AWS wants it. part_mb: size of the parts of a stream,
    each in memory while it travels; an object has at most 10,000. connections: at the same time. timeout_s: of one
    request. Of the bucket itself, None as it is: versioning: whether the server keeps what is replaced or removed, for
    noncurrent_days. tags: the bucket's, beside those that others gave it.
    """

    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    endpoint: str | None = None
    region: str | None = None
    ca_file: str | None = None
    virtual_hosts: bool | None = None
    part_mb: int = 8
    connections: int = 16
    timeout_s: float = 60.0
    versioning: bool | None = None
    noncurrent_days: int | None = None
    tags: Mapping[str, str] = {}


@dataclass(frozen=True)
class Place:
    """A bucket, the beginning of all keys in it ("" or ends with a slash), and how to reach it."""

    bucket: str
    prefix: str
    options: Options

    def store(self) -> S3Store:
        """The client of the data: Rust, no thread of ours, no retry of its own."""
        given = self.options
        config: S3Config = {"bucket": self.bucket, "virtual_hosted_style_request": self._virtual_hosts}
        if given.access_key is not None and given.secret_key is not None:
            config |= {"access_key_id": given.access_key, "secret_access_key": given.secret_key}
        if given.session_token is not None:
            config["session_token"] = given.session_token
        if given.endpoint is not None:
            config["endpoint"] = given.endpoint
        if given.region is not None or given.endpoint is not None:
            config["region"] = given.region or "us-east-1"
        client: ClientConfig = {"timeout": timedelta(seconds=given.timeout_s), "connect_timeout": timedelta(seconds=10)}
        if (given.endpoint or "").startswith("http:"):
            client["allow_http"] = True
        if given.ca_file is not None:
            client["root_certificate"] = _content(given.ca_file)
        return S3Store(config=config, client_options=client, retry_config={"max_retries": 0})

    def control(self) -> Any:
        """The client of everything that is more than data: buckets, the parts of an upload; blocking."""
        given = self.options
        config = Config(
            max_pool_connections=given.connections,
            connect_timeout=10,
            read_timeout=given.timeout_s,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "virtual" if self._virtual_hosts else "path"},
        )
        return get_session().create_client(
            "s3",
            region_name=given.region or ("us-east-1" if given.endpoint else None),
            endpoint_url=given.endpoint,
            verify=given.ca_file,
            aws_access_key_id=given.access_key,
            aws_secret_access_key=given.secret_key,
            aws_session_token=given.session_token,
            config=config,
        )

    @property
    def _virtual_hosts(self) -> bool:
        said = self.options.virtual_hosts
        return self.options.endpoint is None if said is None else said


def read_options(url: str, options: Mapping[str, Any]) -> Place:
    """Raises ConfigurationError."""
    try:
        given = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as e:
        raise ConfigurationError(
            f"options of an S3 store: {e}; known: {', '.join(Options.__struct_fields__)}"
        ) from None
    parts = urlsplit(url)
    if parts.scheme == "s3":
        bucket, path = parts.netloc, parts.path.lstrip("/")
    elif parts.scheme in SCHEMES and parts.hostname is not None:
        bucket, _, path = parts.path.lstrip("/").partition("/")
        given = _with_server(given, parts.scheme, parts.netloc, parts.username, parts.password)
    else:
        bucket = path = ""
    if not bucket or "@" in bucket or parts.query or parts.fragment:
        raise ConfigurationError("s3://BUCKET[/PREFIX], or minio://USER:PASSWORD@HOST:PORT/BUCKET[/PREFIX]")
    if not 5 <= given.part_mb <= 1024 or given.connections < 1 or given.timeout_s <= 0:
        raise ConfigurationError("options of an S3 store: part_mb from 5 to 1024, connections and timeout_s above 0")
    if given.noncurrent_days is not None and (not given.versioning or given.noncurrent_days < 1):
        raise ConfigurationError("options of an S3 store: noncurrent_days is from 1, and needs versioning = true")
    if (given.access_key is None) != (given.secret_key is None):
        raise ConfigurationError("options of an S3 store: access_key and secret_key are given together")
    try:
        prefix = f"{check_object_key(path.rstrip('/'))}/" if path.rstrip("/") else ""
    except InvalidData as e:
        raise ConfigurationError(f"the prefix of an S3 store: {e}") from None
    return Place(bucket, prefix, given)


def _with_server(given: Options, scheme: str, netloc: str, user: str | None, password: str | None) -> Options:
    host = netloc.rpartition("@")[2]
    server = {"endpoint": f"{'https' if scheme == 'minios' else 'http'}://{host}"}
    if user is not None and password is not None:
        server |= {"access_key": unquote(user), "secret_key": unquote(password)}
    named = {name: value for name, value in server.items() if getattr(given, name) is None}
    return msgspec.structs.replace(given, **named)


def _content(file: str) -> bytes:
    try:
        with open(file, "rb") as content:
            return content.read()
    except OSError as e:
        raise ConfigurationError(f"options of an S3 store: ca_file cannot be read ({e.strerror})") from None
