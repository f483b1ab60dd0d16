"""The driver, which has no types of its own."""

from __future__ import annotations

import importlib
from typing import Any

asyncpg: Any = importlib.import_module("asyncpg")
