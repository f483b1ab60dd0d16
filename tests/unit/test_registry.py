"""From a URL's scheme to the adapter, by the entry points of whatever is installed."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from polystore import registry
from polystore.config import load_config
from polystore.env import SYSTEM_ENV
from polystore.errors import ConfigurationError

ADAPTER = """
async def connect(url, options, env):
    return (url, options)

async def needs_driver(url, options, env):
    import fakedb_driver.client

async def broken(url, options, env):
    import fakedb_adapters.misspelt

def profile(url):
    return {"home": {"url": "fake:" + url.partition(":")[2], "roles": ["home"]}, "search": {"url": "fake:search"}}
"""
ENTRY_POINTS = """
[polystore.adapters]
fake = fakedb_adapters.fakedb:connect
fake2 = fakedb_adapters.fakedb:connect
driverless = fakedb_adapters.fakedb:needs_driver
extraless = fakedb_adapters.other:needs_driver
importless = fakedb_adapters.importless:connect
broken = fakedb_adapters.fakedb:broken
[polystore.profiles]
fakes = fakedb_adapters.fakedb:profile
"""
METADATA = "Metadata-Version: 2.1\nName: fakedb-for-polystore\nVersion: 1.0\nProvides-Extra: fakedb\n"


@pytest.fixture(autouse=True, scope="module")
def somebody_elses_adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A distribution with adapters, as pip installs it."""
    site = tmp_path_factory.mktemp("site")
    info, package = site / "fakedb_for_polystore-1.0.dist-info", site / "fakedb_adapters"
    info.mkdir()
    package.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    for name in ("__init__", "fakedb", "other"):
        (package / f"{name}.py").write_text(ADAPTER)
    (package / "importless.py").write_text("import fakedb_driver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(site), *sys.path])
        registry.installed.cache_clear()
        yield
    registry.installed.cache_clear()


def connect(url: str) -> object:
    return asyncio.run(registry.connect(url, {"a": 1}, SYSTEM_ENV))


@pytest.mark.parametrize("url", ["fake://host/db", "FAKE:x", "fake2:alias"])
def test_the_scheme_chooses_the_adapter_and_it_gets_the_url_as_written(url: str) -> None:
    assert connect(url) == (url, {"a": 1})


def test_the_adapters_of_this_distribution_are_known() -> None:
    assert {"memory", "sqlite", "fake"} <= set(registry.schemes())


def test_an_unknown_scheme_is_refused_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="'sqlit' is not known, did you mean 'sqlite'") as caught:
        connect("sqlit:secret")
    for scheme in registry.schemes():
        assert scheme in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "plain", "C:\\data", "://host", "/path:x"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="begins with a scheme"):
        connect(url)


@pytest.mark.parametrize(
    ("scheme", "install"),
    [
        ("driverless", 'pip install "fakedb-for-polystore[fakedb]"'),
        ("extraless", "pip install fakedb_driver"),
        ("importless", "pip install fakedb_driver"),
    ],
)
def test_a_missing_driver_says_what_to_install(scheme: str, install: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(f"{scheme}:x")
    assert str(caught.value) == f"{scheme}: needs the module 'fakedb_driver', which is not installed: {install}"


def test_a_mistake_inside_an_adapter_is_not_called_a_missing_driver() -> None:
    with pytest.raises(ModuleNotFoundError, match="misspelt"):
        connect("broken:x")


def test_a_profile_stands_for_several_stores() -> None:
    assert registry.profile("fake:x") is None
    assert registry.profile("no url") is None
    stores = load_config("fakes:x").stores
    assert {name: store.url for name, store in stores.items()} == {"home": "fake:x", "search": "fake:search"}
    assert stores["home"].roles == ("home",)


def test_a_profile_is_no_store_among_others() -> None:
    with pytest.raises(ConfigurationError, match=r"stores\.main\.url: fakes: stands for several stores"):
        load_config({"stores": {"main": {"url": "fakes:x"}}})
    with pytest.raises(ConfigurationError, match=r"stores\.search: url= at the top brings a store of this name"):
        load_config({"url": "fakes:x", "stores": {"search": {"url": "fake:y"}}})
    both = load_config({"url": "fakes:x", "stores": {"more": {"url": "fake:y"}}})
    assert list(both.stores) == ["home", "search", "more"]
