"""How an application that uses SQLAlchemy reaches the test server."""

from __future__ import annotations

import sqlalchemy as sa

from tests.stack import url_of


def sqlalchemy_url(search_path: str, driver: str = "psycopg") -> str:
    """SQLAlchemy's URL of a schema of PostgreSQL."""
    url = sa.make_url(url_of("postgresql")).set(drivername=f"postgresql+{driver}")
    if driver != "asyncpg":  # which takes the path in its `server_settings`
        url = url.set(query={"options": f"-csearch_path={search_path}"})
    return url.render_as_string(hide_password=False)
