"""MinIO: the commit of 2026-02-12, since the module of the last release cannot be installed by its version."""

from compose.native import cache
from compose.native.golang import GoProgram
from compose.native.place import DATABASE, HOST, PASSWORD, USER, answers
from compose.native.processes import Process
from compose.native.server import Recipe, Site

MINIO = GoProgram(
    name="minio",
    version="0.0.0-20260212201848-7aac2a2c5b7c",
    package="github.com/minio/minio",
    needs_go=(1, 24),
)


def minio(site: Site) -> Process:
    return Process(
        name="minio",
        command=[cache.folder(MINIO) / "bin/minio", "server", site.store / "db", "--address", f"{HOST}:{site.port}"],
        environment={"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"},
        ready=lambda: answers(site.port, b"GET /minio/health/live HTTP/1.1\r\nHost: minio\r\n\r\n", b"200 OK"),
    )


RECIPE = Recipe(
    name="minio",
    port=19000,
    artifacts=[MINIO],
    url=lambda port: f"minio://{USER}:{PASSWORD}@{HOST}:{port}/{DATABASE}",
    processes=lambda site: [minio(site)],
)
