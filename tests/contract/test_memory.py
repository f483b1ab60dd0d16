"""The kit against the memory adapter."""

from collections.abc import Iterator

import pytest
from polystore_adapters.memory import connect as connect_memory
from polystore_adapters.memory import forget_servers

from polystore.testing.conformance import (
    CommitConformance,
    Connect,
    FilterConformance,
    HistoriesConformance,
    InlineGetConformance,
    JournalConformance,
    RecordsConformance,
    RepositoryConformance,
    SchemaConformance,
    TextConformance,
    TraversalConformance,
    VectorConformance,
)


class Memory:
    @pytest.fixture
    def connect(self) -> Iterator[Connect]:
        yield lambda env: connect_memory("memory:kit", {}, env)
        forget_servers()


class TestRepository(Memory, RepositoryConformance):
    pass


class TestRecords(Memory, RecordsConformance):
    pass


class TestRecordsOfAHome(TestRecords):
    home = True


class TestInlineGet(Memory, InlineGetConformance):
    pass


class TestHistories(Memory, HistoriesConformance):
    pass


class TestCommit(Memory, CommitConformance):
    pass


class TestJournal(Memory, JournalConformance):
    pass


class TestFilter(Memory, FilterConformance):
    pass


class TestFilterAtHome(TestFilter):
    home = True


class TestText(Memory, TextConformance):
    pass


class TestTextAtHome(TestText):
    home = True


class TestVector(Memory, VectorConformance):
    pass


class TestVectorAtHome(TestVector):
    home = True


class TestTraversal(Memory, TraversalConformance):
    pass


class TestTraversalAtHome(TestTraversal):
    home = True


class TestSchema(Memory, SchemaConformance):
    pass


class TestSchemaOfAHome(TestSchema):
    home = True
