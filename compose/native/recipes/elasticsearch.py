"""Elasticsearch 8 without its modules, as Maven has it: no painless, no analyzer but the standard one, no `GET /`."""

from pathlib import Path

from compose.native import cache, maven, processes
from compose.native.maven import Unzipped
from compose.native.place import HOST, answers
from compose.native.processes import Process
from compose.native.server import Recipe, Site

ELASTICSEARCH = Unzipped(
    name="elasticsearch",
    version="8.19.4",
    artifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.4:zip",
)
HEALTHY = b"GET /_cluster/health?wait_for_status=yellow&timeout=1s HTTP/1.0\r\n\r\n"


def tree() -> Path:
    return cache.folder(ELASTICSEARCH) / "tree"


def create(site: Site) -> None:
    processes.run(["mkdir", "config", "tmp"], site.store)
    processes.run(["cp", tree() / "config/log4j2.properties", "config"], site.store)
    given = (tree() / "config/jvm.options").read_text().splitlines()
    kept = [
        line for line in given if not line.startswith(("-Xlog", "-XX:ErrorFile"))
    ]  # into its own folder, which is ours
    processes.run(["tee", site.store / "config/jvm.options"], site.store, "\n".join(kept))


def configure(site: Site) -> None:
    settings = {
        "cluster.name": "polystore",
        "discovery.type": "single-node",
        "network.host": HOST,
        "http.port": site.port,
        "transport.port": site.port + 1,
        "path.data": site.store / "db",
        "path.logs": site.store / "log",
        "xpack.security.enabled": "false",
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }
    text = "".join(f"{name}: {value}\n" for name, value in settings.items())
    processes.run(["tee", site.store / "config/elasticsearch.yml"], site.store, text)


def server(site: Site) -> Process:
    return Process(
        name="elasticsearch",
        command=[tree() / "bin/elasticsearch"],
        environment={
            "ES_JAVA_HOME": str(maven.java().parent.parent),
            "ES_JAVA_OPTS": "-Xms512m -Xmx512m" + (" -XX:TieredStopAtLevel=1" if site.brief else ""),
            "ES_PATH_CONF": str(site.store / "config"),
            "ES_TMPDIR": str(site.store / "tmp"),
        },
        ready=lambda: answers(site.port, HEALTHY, b'"timed_out":false'),
    )


RECIPE = Recipe(
    name="elasticsearch",
    port=19200,
    ports=2,
    artifacts=[ELASTICSEARCH],
    url=lambda port: f"elasticsearch://{HOST}:{port}",
    create=create,
    configure=configure,
    processes=lambda site: [server(site)],
)
