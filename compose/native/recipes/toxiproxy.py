"""Toxiproxy: its HTTP interface makes proxies that delay, cut and starve what goes through them."""

from compose.native import cache
from compose.native.golang import GoProgram
from compose.native.place import HOST, answers
from compose.native.processes import Process
from compose.native.server import Recipe, Site

TOXIPROXY = GoProgram(
    name="toxiproxy", version="2.12.0", package="github.com/Shopify/toxiproxy/v2/cmd/server", needs_go=(1, 23)
)


def toxiproxy(site: Site) -> Process:
    return Process(
        name="toxiproxy",
        command=[cache.folder(TOXIPROXY) / "bin/toxiproxy", "-host", HOST, "-port", str(site.port)],
        ready=lambda: answers(site.port, b"GET /version HTTP/1.0\r\n\r\n", b"200 OK"),
    )


RECIPE = Recipe(
    name="toxiproxy",
    port=18474,
    artifacts=[TOXIPROXY],
    url=lambda port: f"http://{HOST}:{port}",
    processes=lambda site: [toxiproxy(site)],
)
