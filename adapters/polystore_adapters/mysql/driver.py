"""asyncmy, whose own types leave most open."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncmy
import asyncmy.errors

module: Any = asyncmy
connect: Any = module.connect
"""Makes a `Connection`."""
Connection: TypeAlias = Any
DriverError: type[Exception] = asyncmy.errors.MySQLError
"""Its first argument is a number of the server's or of the driver's."""
