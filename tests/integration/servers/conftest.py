"""Drivers forget sockets of connections that are cancelled while they are made: those are collected with their test."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.sockets import forgotten_connections


@pytest.fixture(autouse=True)
def collected() -> Generator[None]:
    with forgotten_connections():
        yield
