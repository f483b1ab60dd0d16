"""Neo4j 5, the community edition."""

from compose.native import cache, maven, processes
from compose.native.maven import Jars
from compose.native.place import HOST, PASSWORD, answers
from compose.native.processes import Command, Process
from compose.native.server import Recipe, Site

NEO4J = Jars(
    name="neo4j",
    version="5.26.11",
    artifacts=["org.neo4j:neo4j:5.26.11", "org.neo4j.app:neo4j-server:5.26.11"],
)
USER = "neo4j"  # the only one that a new server knows
MEMORY = ["-Xms512m", "-Xmx512m", "-XX:+UseG1GC"]
BRIEF = ["-XX:TieredStopAtLevel=1"]
OPENED = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.nio", "java.io", "sun.nio.ch")]
HANDSHAKE = bytes.fromhex("6060b017 00000405 00000000 00000000 00000000")  # Bolt: the magic number, version 5.4


def java(*words: str) -> Command:
    return [maven.java(), "-Dlog4j2.disable.jmx=true", "-cp", f"{cache.folder(NEO4J) / 'lib'}/*", *words]


def home(site: Site) -> dict[str, str]:
    return {"NEO4J_HOME": str(site.store), "NEO4J_CONF": str(site.store / "conf")}


def create(site: Site) -> None:
    folders = ["conf", "data", "logs", "plugins", "import", "run", "licenses"]
    processes.run(["mkdir", *folders], site.store)
    configure(site)
    processes.run(
        java(*BRIEF, "org.neo4j.cli.AdminTool", "dbms", "set-initial-password", PASSWORD), site.store, **home(site)
    )


def configure(site: Site) -> None:
    settings = {
        "server.default_listen_address": HOST,
        "server.bolt.listen_address": f"{HOST}:{site.port}",
        "server.bolt.advertised_address": f"{HOST}:{site.port}",
        "server.http.enabled": "false",
        "server.https.enabled": "false",
        "server.memory.pagecache.size": "64m",
        "server.memory.heap.initial_size": "512m",
        "server.memory.heap.max_size": "512m",
        "dbms.usage_report.enabled": "false",
        "db.tx_log.rotation.retention_policy": "100M size",
        "db.tx_log.preallocate": "false",
    }
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    processes.run(["tee", site.store / "conf/neo4j.conf"], site.store, text)


def server(site: Site) -> Process:
    entry = ["org.neo4j.server.CommunityEntryPoint", f"--home-dir={site.store}", f"--config-dir={site.store / 'conf'}"]
    options = [*MEMORY, *BRIEF] if site.brief else MEMORY
    return Process(
        name="neo4j",
        command=java(*options, *OPENED, "-Dio.netty.tryReflectionSetAccessible=true", *entry, "--console-mode"),
        ready=lambda: answers(site.port, HANDSHAKE, bytes.fromhex("00000405")),
    )


RECIPE = Recipe(
    name="neo4j",
    port=17687,
    artifacts=[NEO4J],
    url=lambda port: f"neo4j://{USER}:{PASSWORD}@{HOST}:{port}",
    create=create,
    configure=configure,
    processes=lambda site: [server(site)],
)
