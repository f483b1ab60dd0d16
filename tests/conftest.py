"""What holds for every test: the same examples in each run, and nothing taken from the machine it runs on."""

import os

from hypothesis import settings

from tests import stack, variants

# A run that fails fails again: examples come from the test's code alone. Slow machines are no failure.
settings.register_profile("polystore", deadline=None, derandomize=True, database=None)
settings.load_profile("polystore")

os.environ.pop("POLYSTORE_CONFIG", None)  # a developer's own configuration


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: two more than there are cores, for tests wait for servers, too."""
    return (os.cpu_count() or 1) + 2


def pytest_report_header() -> list[str]:
    left_out = "variants on servers: by turns (POLYSTORE_TEST_ALL=1: all)"
    return [stack.overview(), *([] if variants.all_of_them() else [left_out])]
