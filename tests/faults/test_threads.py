"""Stores are prepared in threads, several at once: what the threads share is made before they begin."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
from dataclasses import dataclass

import msgspec
from polystore import entity
from polystore.entity import entity_type
from polystore.evolution import describe, load
from polystore.relational.serving import Served, load_served

@entity()
@dataclass
class Note:
    id: str

text = describe(entity_type(Note)).json()
served = msgspec.json.encode(Served(True, [], {}))
sys.setswitchinterval(1e-7)
begin = threading.Barrier(8)

def work():
    begin.wait()
    load(text)
    load_served(served)

threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_stored_schemas_may_be_read_by_several_threads_at_once() -> None:
    """Regression: about every second of these processes died of SIGSEGV inside msgspec, and now and then a start of an
    embedded directory did. It happens at the first use, so each try is a process of its own."""
    children = [subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, text=True) for _ in range(10)]
    ends = [(child.communicate(timeout=60)[1], child.returncode) for child in children]
    assert ends == [("", 0)] * len(children)
