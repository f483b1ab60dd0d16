"""The server behind `memory:` URLs: the data, and atomic synchronous operations on it."""

from __future__ import annotations

from polystore.env import Env
from polystore.model import Instance

from .cache import CACHE_BYTES, Cache
from .epoch import Epochs
from .facts import FactStore
from .graph import Graph
from .objects import Objects
from .queries import Queries
from .schema import Schema
from .state import LiveState


class MemoryServer(Epochs, FactStore, Queries, Graph, Schema, LiveState):
    """What several connections share, as they would share a database server.

    The methods have the names and the meaning of the protocols in `polystore.protocols`, but are synchronous: each is
    one atomic step, and no other step sees a half of it. A simulation can so delay, repeat or lose calls as a network
    would. `env` is the server's own clock and randomness. Not safe for threads.
    """

    def __init__(self, env: Env, *, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(env)
        self.cache = Cache(env, cache_bytes)
        self._run_id = str(env.uuid7())
        self.blobs = Objects(env)

    def ping(self) -> Instance:
        return Instance("memory", "1", self._run_id, self._run_id)  # a restart forgets everything
