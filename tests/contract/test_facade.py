"""The kit through the facade, on each profile."""

from pathlib import Path

import pytest

from polystore.env import new_id
from polystore.testing.conformance.facade import Config, FacadeConformance
from polystore.testing.conformance.facade_state import StateFacadeConformance


class TestOneMemory(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Config:
        return "memory:"


class TestMemoryForEachRole(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Config:
        roles = {"main": "home", "words": "full_text", "shapes": "vector", "ties": "graph"}
        return {"stores": {name: {"url": "memory:", "roles": [role]} for name, role in roles.items()}}


class TestSqliteFile(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Config:
        return f"sqlite:{tmp_path}/kit.db"


class TestEmbedded(FacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Config:
        return f"embedded:{tmp_path}/kit"


class TestStateInNamedMemory(StateFacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self) -> Config:
        live = {"url": f"memory:{new_id()}", "roles": ["live_state"]}
        return {"stores": {"main": {"url": "memory:"}, "live": live}}


class TestStateInASqliteFile(StateFacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Config:
        return f"sqlite:{tmp_path}/kit.db"


class TestStateEmbedded(StateFacadeConformance):
    @pytest.fixture(name="config")
    def given_config(self, tmp_path: Path) -> Config:
        return f"embedded:{tmp_path}/kit"
