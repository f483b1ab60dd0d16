"""The public names, and what it costs to import them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import polystore

HEAVY = (
    "sqlalchemy",
    "sqlite3",
    "numpy",
    "asyncio",
    "polystore.architecture",
    "polystore_adapters",
    "importlib.metadata",
)


def test_every_public_name_is_there() -> None:
    assert len(set(polystore.__all__)) == len(polystore.__all__)
    for name in polystore.__all__:
        assert getattr(polystore, name) is not None, name
    assert set(polystore.__all__) <= set(dir(polystore))
    assert callable(polystore.entity), "not the module of the same name"


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="Colection"):
        getattr(polystore, "Colection")  # noqa: B009


def test_importing_loads_no_database_and_no_facade() -> None:
    code = f"import sys, polystore; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_decorator_is_the_name_whatever_was_imported_first() -> None:
    code = "import polystore.entity, polystore.architecture; from polystore import entity; print(callable(entity))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
