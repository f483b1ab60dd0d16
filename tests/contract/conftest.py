"""On servers the variants of a test run by turns, see `tests.variants`."""

import pytest

from tests import variants


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if variants.all_of_them():
        return
    here = [item for item in items if item.path.is_relative_to(config.rootpath / "tests" / "contract")]
    left = {*here} - variants.chosen(here)
    config.hook.pytest_deselected(items=[item for item in here if item in left])
    items[:] = [item for item in items if item not in left]
