"""asyncmy, whose own types leave most open."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncmy
import asyncmy.errors
from asyncmy.constants import CLIENT

module: Any = asyncmy
connect: Any = module.connect
"""Makes a `Connection`."""
Connection: TypeAlias = Any
MULTI_STATEMENTS: int = CLIENT.MULTI_STATEMENTS
"""The flag of connections that send several statements in one packet."""
DriverError: type[Exception] = asyncmy.errors.MySQLError
"""Its first argument is a number of the server's or of the driver's."""
