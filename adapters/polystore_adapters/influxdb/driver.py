"""influxdb-client, whose types leave most open."""

from __future__ import annotations

import importlib
from typing import Any

_client: Any = importlib.import_module("influxdb_client")
_rest: Any = importlib.import_module("influxdb_client.rest")
Client: Any = importlib.import_module("influxdb_client.client.influxdb_client_async").InfluxDBClientAsync
ApiException: type[Exception] = _rest.ApiException
"""The server answered with an error: `status`."""
ClientError: type[Exception] = importlib.import_module("aiohttp").ClientError
"""There was no answer."""
PLAIN: Any = _client.Dialect(header=True, delimiter=",", annotations=[])
"""Of answers: a line with the names of the columns, then the rows."""
