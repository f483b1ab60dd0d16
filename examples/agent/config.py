"""The configuration in the data directory: written at the first start, the user's from then on."""

import json
import os
import tomllib
from pathlib import Path

CONFIG = """\
# Written by the agent at its first start. With this file every `polystore -c polystore.toml ...` works on its memory.
entities = ["agent.entities"]
import_paths = [{examples}]
url = {url}
"""
SHORT = {"embedded": "embedded:.", "sqlite": "sqlite:agent.db"}
"""What may be written instead of an URL. Paths are relative to the data directory."""


class UnusableData(Exception):
    """The data directory cannot be written, or is of another store than the one asked for."""


def configured(data: Path | None, store: str | None) -> Path:
    """The configuration of the data directory, made where there is none. Without a directory each kind of store has
    one of its own. Raises UnusableData."""
    url = SHORT.get(store or "embedded", store or "")
    scheme = url.partition(":")[0]
    data = data or Path(".polystore" if scheme == "embedded" else f".polystore-{scheme}")
    config = data / "polystore.toml"
    examples = str(Path(__file__).parents[1].absolute())
    try:
        if not config.exists():
            data.mkdir(parents=True, exist_ok=True)
            new = config.with_suffix(f".{os.getpid()}")
            new.write_text(CONFIG.format(examples=_quoted(examples), url=_quoted(url)), encoding="utf-8")
            new.replace(config)  # whole or not at all, whenever this process ends
        elif store is not None and tomllib.loads(config.read_text(encoding="utf-8")).get("url") != url:
            raise UnusableData(f"{config} says another store than {url}; leave --store out, or choose another --data")
    except OSError as e:
        raise UnusableData(f"{data} cannot be used: {e.strerror}") from e
    except ValueError as e:
        raise UnusableData(f"{config} cannot be read: {e}") from e
    return config


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
