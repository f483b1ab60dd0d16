"""What holds for every test: the same examples in each run, and nothing taken from the machine it runs on."""

import os

from hypothesis import settings

from tests import stack

# A run that fails fails again: examples come from the test's code alone. Slow machines are no failure.
settings.register_profile("polystore", deadline=None, derandomize=True, database=None)
settings.load_profile("polystore")

os.environ.pop("POLYSTORE_CONFIG", None)  # a developer's own configuration


def pytest_report_header() -> str:
    return stack.overview()
