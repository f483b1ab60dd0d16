"""The conformance kit: what every adapter promises, as pytest classes, one per protocol.

A third party subclasses the classes of the protocols that its repository claims, overrides the fixture `connect` in
each, and runs pytest:

    from polystore.testing.conformance import Connect, RepositoryConformance

    class TestRepository(RepositoryConformance):
        @pytest.fixture
        def connect(self, tmp_path: Path) -> Connect:
            return lambda env: my_adapter.connect(f"mystore:{tmp_path}/data", {}, env)

Needs pytest, nothing else.
"""

import pytest

_REWRITTEN = """alias application_tables base cache cancellation commit durability epoch expiry facade facade_state
    facts file_claims filters histories home_facets kept_bodies kept_vectors limits logs objects outbox overwriting
    records repository retries schema spills state text traversal vectors writes"""
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _REWRITTEN.split()))

from polystore.testing.conformance.alias import AliasConformance  # noqa: E402
from polystore.testing.conformance.application_tables import ApplicationTablesConformance  # noqa: E402
from polystore.testing.conformance.base import Conformance, Connect, MovableEnv  # noqa: E402
from polystore.testing.conformance.cache import CacheConformance, InlineCacheConformance  # noqa: E402
from polystore.testing.conformance.cancellation import CancellationConformance  # noqa: E402
from polystore.testing.conformance.commit import CommitConformance  # noqa: E402
from polystore.testing.conformance.counts import CountsConformance  # noqa: E402
from polystore.testing.conformance.durability import DurabilityConformance, HomeDurabilityConformance  # noqa: E402
from polystore.testing.conformance.epoch import EpochConformance  # noqa: E402
from polystore.testing.conformance.expiry import CopyExpiryConformance, ExpiryConformance  # noqa: E402
from polystore.testing.conformance.facade import FacadeConformance  # noqa: E402
from polystore.testing.conformance.facade_state import StateFacadeConformance  # noqa: E402
from polystore.testing.conformance.facts import TimeRangeConformance  # noqa: E402
from polystore.testing.conformance.file_claims import FileClaimsConformance  # noqa: E402
from polystore.testing.conformance.filters import FilterConformance  # noqa: E402
from polystore.testing.conformance.histories import HistoriesConformance  # noqa: E402
from polystore.testing.conformance.home_facets import (  # noqa: E402
    HomeTextConformance,
    HomeTraversalConformance,
    HomeVectorConformance,
)
from polystore.testing.conformance.journal import JournalConformance  # noqa: E402
from polystore.testing.conformance.kept_bodies import KeptBodiesConformance  # noqa: E402
from polystore.testing.conformance.layered import layered  # noqa: E402
from polystore.testing.conformance.limits import ChannelConformance, LimitConformance  # noqa: E402
from polystore.testing.conformance.logs import LogConformance  # noqa: E402
from polystore.testing.conformance.objects import ObjectsConformance  # noqa: E402
from polystore.testing.conformance.rebuild import RebuildConformance  # noqa: E402
from polystore.testing.conformance.records import InlineGetConformance, RecordsConformance  # noqa: E402
from polystore.testing.conformance.repository import RepositoryConformance  # noqa: E402
from polystore.testing.conformance.schema import SchemaConformance  # noqa: E402
from polystore.testing.conformance.spills import SpillConformance  # noqa: E402
from polystore.testing.conformance.state import StateConformance  # noqa: E402
from polystore.testing.conformance.text import RefreshConformance, TextConformance  # noqa: E402
from polystore.testing.conformance.traversal import TraversalConformance  # noqa: E402
from polystore.testing.conformance.vectors import VectorConformance  # noqa: E402

__all__ = [
    "AliasConformance",
    "ApplicationTablesConformance",
    "CacheConformance",
    "CancellationConformance",
    "ChannelConformance",
    "CommitConformance",
    "Conformance",
    "Connect",
    "CopyExpiryConformance",
    "CountsConformance",
    "DurabilityConformance",
    "EpochConformance",
    "ExpiryConformance",
    "FacadeConformance",
    "FileClaimsConformance",
    "FilterConformance",
    "HistoriesConformance",
    "HomeDurabilityConformance",
    "HomeTextConformance",
    "HomeTraversalConformance",
    "HomeVectorConformance",
    "InlineCacheConformance",
    "InlineGetConformance",
    "JournalConformance",
    "KeptBodiesConformance",
    "LimitConformance",
    "LogConformance",
    "MovableEnv",
    "ObjectsConformance",
    "RebuildConformance",
    "RecordsConformance",
    "RefreshConformance",
    "RepositoryConformance",
    "SchemaConformance",
    "SpillConformance",
    "StateConformance",
    "StateFacadeConformance",
    "TextConformance",
    "TimeRangeConformance",
    "TraversalConformance",
    "VectorConformance",
    "layered",
]
