"""InfluxDB 2.7, built of its Go module and the crates of Flux; without the pages of its own interface."""

import json
import urllib.request

from compose.native import cache
from compose.native.influxd import Influxd
from compose.native.place import DATABASE, HOST, PASSWORD, USER, StackError, answers
from compose.native.processes import Command, Process
from compose.native.server import Recipe, Site

INFLUXD = Influxd(name="influxdb", version="2.7.12")


def influxd(site: Site) -> Process:
    paths: Command = ["--bolt-path", site.store / "influxd.bolt", "--engine-path", site.store / "engine"]
    listen = ["--http-bind-address", f"{HOST}:{site.port}", "--reporting-disabled"]
    return Process(
        name="influxd",
        command=[cache.folder(INFLUXD) / "bin/influxd", *paths, *listen],
        ready=lambda: answers(site.port, b"GET /health HTTP/1.0\r\n\r\n", b"200 OK"),
    )


def settle(site: Site) -> None:
    """The first user, organisation, bucket and token: once."""
    setup = f"http://{HOST}:{site.port}/api/v2/setup"
    with urllib.request.urlopen(setup, timeout=10) as answer:
        if not json.load(answer)["allowed"]:
            return
    given = {"username": USER, "password": PASSWORD, "org": DATABASE, "bucket": DATABASE, "token": PASSWORD}
    request = urllib.request.Request(setup, json.dumps(given).encode(), {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError as error:
        raise StackError(f"influxd refuses its first user: {error}") from error


RECIPE = Recipe(
    name="influxdb",
    port=18086,
    artifacts=[INFLUXD],
    url=lambda port: f"influxdb://:{PASSWORD}@{HOST}:{port}/{DATABASE}",
    processes=lambda site: [influxd(site)],
    settle=settle,
)
