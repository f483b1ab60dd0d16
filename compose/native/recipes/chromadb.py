"""ChromaDB 1.5."""

from compose.native import cache, pypi
from compose.native.place import COMPOSE, HOST, answers
from compose.native.processes import Process
from compose.native.pypi import Packages
from compose.native.server import Recipe, Site

CHROMADB = Packages(name="chromadb", version="1.5.9", pins=COMPOSE / "chromadb/requirements.txt")
RUN = "from chromadb.cli.cli import app; app()"


def chroma(site: Site) -> Process:
    return Process(
        name="chroma",
        command=[
            pypi.python(),
            "-c",
            RUN,
            "run",
            "--path",
            site.store / "db",
            "--host",
            HOST,
            "--port",
            str(site.port),
        ],
        environment={"PYTHONPATH": str(cache.folder(CHROMADB) / "packages"), "ANONYMIZED_TELEMETRY": "False"},
        ready=lambda: answers(site.port, b"GET /api/v2/heartbeat HTTP/1.0\r\nHost: localhost\r\n\r\n", b"200 OK"),
    )


RECIPE = Recipe(
    name="chromadb",
    port=18000,
    artifacts=[CHROMADB, pypi.PYTHON],
    url=lambda port: f"chromadb://{HOST}:{port}",
    processes=lambda site: [chroma(site)],
)
