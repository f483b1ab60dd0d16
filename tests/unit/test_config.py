"""Configuration: where it comes from, and that every mistake says where it is and what is known."""

import sys
from pathlib import Path
from typing import Any

import pytest

from polystore.config import ROLES, Config, StoreConfig, load_config, redact, resolve_entities
from polystore.embedders import EmbedderConfig
from polystore.entity import entity_type
from polystore.errors import ConfigurationError, EntityError
from polystore.selection import ROLES as PREFERENCES

TOML = """
entities = ["shop.models", "shop.more:Person"]
import_paths = ["src", "/opt/app"]
[stores.main]
url = "postgresql://app:${PGPASSWORD}@db/app"
roles = ["home", "journal"]
[stores.search]
url = "sqlite:data/search.db"
required = false
timeout_s = 2
[stores.search.options]
pages = ["${FIRST}", "$${literal}"]
[embedders.default]
dimension = 128
[pins.memory]
home = "main"
full_text = "search"
"""
VARIABLES = {"PGPASSWORD": "p%40ss", "FIRST": "one"}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(config: Any, env_vars: dict[str, str] | None = None) -> str:
    """The message of the refusal."""
    with pytest.raises(ConfigurationError) as caught:
        load_config(config, env_vars or {})
    return str(caught.value)


# -- where it comes from ----------------------------------------------------------------------------------------------


def test_a_file_holds_everything(directory: Path) -> None:
    (directory / "app").mkdir()
    (directory / "app" / "polystore.toml").write_text(TOML)
    config = load_config("app/polystore.toml", VARIABLES)
    assert config == Config(
        entities=("shop.models", "shop.more:Person"),
        import_paths=(str(directory / "app" / "src"), "/opt/app"),
        stores={
            "main": StoreConfig(url="postgresql://app:p%40ss@db/app", roles=("home", "journal")),
            "search": StoreConfig(
                url=f"sqlite:{directory}/app/data/search.db",
                required=False,
                timeout_s=2.0,
                options={"pages": ["one", "${literal}"]},
            ),
        },
        embedders={"default": EmbedderConfig(kind="hashed", dimension=128)},
        pins={"memory": {"home": "main", "full_text": "search"}},
        base_dir=str(directory / "app"),
        source="app/polystore.toml",
    )


def test_one_url_is_one_store(directory: Path) -> None:
    assert load_config("sqlite:x.db").stores == {"main": StoreConfig(url=f"sqlite:{directory}/x.db")}
    assert load_config("redis://cache/0").stores == {"main": StoreConfig(url="redis://cache/0")}


def test_a_mapping_has_the_shape_of_the_file(directory: Path) -> None:
    config = load_config({"stores": {"a": {"url": "sqlite:./x/../y.db", "roles": ("home",)}, "b": {"url": "file:z"}}})
    assert config.stores["a"] == StoreConfig(url=f"sqlite:{directory}/y.db", roles=("home",))
    assert config.stores["b"] == StoreConfig(url=f"file:{directory}/z")


@pytest.mark.parametrize("url", ["sqlite:/srv/x.db", "sqlite::memory:", "memory:", "memory:shared", "s3://bucket/x"])
def test_only_relative_paths_of_local_stores_are_changed(url: str) -> None:
    assert load_config(url).stores["main"].url == url


def test_without_an_argument_the_environment_then_the_file_then_the_embedded_default(directory: Path) -> None:
    default = load_config(None, {"POLYSTORE_CONFIG": ""})
    assert default.stores["home"].url == f"sqlite:{directory}/.polystore/home.db"
    (directory / "polystore.toml").write_text('url = "sqlite:from_file.db"')
    assert load_config(None, {}).stores["main"].url == f"sqlite:{directory}/from_file.db"
    assert load_config(None, {"POLYSTORE_CONFIG": "sqlite:named.db"}).stores["main"].url.endswith("/named.db")
    assert "POLYSTORE_CONFIG: there is no file 'gone.toml'" in refused(None, {"POLYSTORE_CONFIG": "gone.toml"})


def test_a_file_without_stores_uses_the_embedded_default_beside_itself(directory: Path) -> None:
    (directory / "app").mkdir()
    (directory / "app" / "x.toml").write_text('entities = ["shop"]')
    config = load_config(directory / "app" / "x.toml")
    assert config.stores["home"].url == f"sqlite:{directory}/app/.polystore/home.db"


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_missing_or_unreadable_file_says_so(directory: Path) -> None:
    assert "there is no file 'nope.toml'" in refused("nope.toml")
    assert "cannot be read" in refused(str(directory))
    (directory / "bad.toml").write_text("a = \n")
    assert "bad.toml is not a TOML file" in refused("bad.toml")
    (directory / "latin.toml").write_bytes(b'a = "\xe9"')
    assert "latin.toml is not a TOML file" in refused("latin.toml")


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (
            {"url": "sqlite:x", "rolls": []},
            ": the key 'rolls' is not known, did you mean 'roles'? known: option",
        ),
        ({"url": "sqlite:x", "roles": ["home", "hom"]}, ".roles[1]: the role 'hom' is not known, did you mean 'home'?"),
        ({"url": "sqlite:x", "roles": ["home", 3]}, ".roles[1]: expected `str`, got `int`"),
        ({"url": "sqlite:x", "roles": "home"}, ".roles: expected `array`, got `str`"),
        ({"url": "sqlite:x", "required": "no"}, ".required: expected `bool`, got `str`"),
        ({"url": "sqlite:x", "timeout_s": 0}, ".timeout_s: must be more than 0"),
        ({"url": "sqlite:x", "timeout_s": float("nan")}, ".timeout_s: must be more than 0"),
        ({"url": "sqlite:x", "timeout_s": "1"}, ".timeout_s: expected `float`, got `str`"),
        ({"url": "sqlite:x", "options": []}, ".options: expected `table`, got `array`"),
        ({"url": 3}, ".url: expected `str`, got `int`"),
        ({"url": "x.db"}, ".url: a URL begins with a scheme"),
        ({}, ": url is missing"),
        ("sqlite:x", ": a table is needed, not str"),
    ],
)
def test_a_mistake_in_a_store_says_where_it_is_and_what_is_known(store: object, said: str) -> None:
    assert refused({"stores": {"a": store}}).startswith(f"the mapping given to open: stores.a{said}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"storse": {}}, "the key 'storse' is not known, did you mean 'stores'? known: embedders, entities,"),
        ({"stores": []}, "stores: expected `table`, got `array`"),
        ({"stores": {"embed:x": {"url": "sqlite:x"}}}, "stores.embed:x: a store's name is letters, digits, _ and -,"),
        ({"stores": {1: {"url": "sqlite:x"}}}, "stores: expected `str`, got `int`"),
        ({"url": 3}, "url: expected `str`, got `int`"),
        ({"entities": "shop"}, "entities: expected `array`, got `str`"),
        (
            {"embedders": {"a": {"kind": "hash"}}},
            "embedders.a.kind: the kind 'hash' is not known, did you mean",
        ),
        ({"embedders": {"a": {"dimension": 0}}}, "embedders.a.dimension: must be from 1 to 8192"),
        (
            {"pins": {"memory": {"home": "hoem"}}},
            "pins.memory.home: the store 'hoem' is not known, did you mean",
        ),
        ({"pins": {"memory": {"hoem": "home"}}}, "pins.memory: the key 'hoem' is not known, did you mean 'home'?"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_is_known(config: dict[str, Any], said: str) -> None:
    assert refused(config).startswith(f"the mapping given to open: {said}")


def test_a_file_is_named_in_its_mistakes(directory: Path) -> None:
    (directory / "my.toml").write_text("[stores.a]\nurl = 1\n")
    assert refused("my.toml") == "my.toml: stores.a.url: expected `str`, got `int`"


def test_an_unset_variable_is_named_with_its_place() -> None:
    message = refused({"stores": {"a": {"url": "sqlite:x", "options": {"list": ["${A}", "${B_2}"]}}}}, {"A": "secret"})
    assert message.endswith("stores.a.options.list[1]: the environment variable B_2 is not set")
    assert "secret" not in message


@pytest.mark.parametrize("text", ["sqlite:${", "sqlite:${}", "sqlite:${1A}", "sqlite:${A"])
def test_a_torn_variable_is_refused(text: str) -> None:
    assert "url: ${ must be followed by a name and }" in refused({"url": text}, {"A": "x"})


def test_variables_are_filled_in_once_and_other_dollars_stay() -> None:
    config = load_config({"url": "x1://${A}:$1$A$$/${B}"}, {"A": "${B}", "B": "b"})
    assert config.stores["main"].url == "x1://${B}:$1$A$$/b"


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:pa:ss/w@rd@db:5432/app", "postgresql://***@db:5432/app"),
        ("redis://:pass@cache/0", "redis://***@cache/0"),
        ("https://h/v1?a=1&api_key=secret&Password=x#y", "https://h/v1?a=1&api_key=***&Password=***#y"),
        ("sqlite:data/x.db", "sqlite:data/x.db"),
        ("mongodb://a@h1,b@h2/x", "mongodb://***@h2/x"),
    ],
)
def test_redact_keeps_the_place_and_hides_the_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_configuration_can_be_printed_without_its_secrets() -> None:
    config = load_config({"stores": {"main": {"url": "pg://u:secret@h/x", "options": {"password": "secret"}}}})
    assert "secret" not in repr(config)
    assert "pg://***@h/x" in repr(config)


@pytest.mark.parametrize(
    "change", [{"roles": ["x"]}, {"roles": 3}, {"timeout_s": -1}, {"nope": 1}, {"options": {"a": "${NO}"}}]
)
def test_no_mistake_shows_the_password_beside_it(change: dict[str, Any]) -> None:
    assert "secret" not in refused({"stores": {"main": {"url": "pg://u:secret@h/x", **change}}})


# -- entities ---------------------------------------------------------------------------------------------------------

MODELS = """
from dataclasses import dataclass
from polystore.entity import entity

@entity()
@dataclass
class {0}First:
    id: str

@entity()
@dataclass
class {0}Second:
    id: str

class {0}Sub({0}First):
    pass

helper = 1
"""


@pytest.fixture
def models(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that nobody else imports, in a folder that is on no path."""
    name = f"models_{directory.name.replace('-', '_')}"
    (directory / "src").mkdir()
    (directory / "src" / f"{name}.py").write_text(MODELS.format(""))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def names(*entities: str, import_paths: tuple[str, ...] = ("src",)) -> list[str]:
    config = load_config({"entities": entities, "import_paths": import_paths})
    return [entity_type(cls).name for cls in resolve_entities(config)]


def test_a_module_means_all_its_entity_classes_and_no_others(models: str) -> None:
    assert names(models) == ["first", "second"]


def test_a_class_means_itself_and_is_taken_once(models: str) -> None:
    assert names(f"{models}:Second") == ["second"]
    assert names(f"{models}:Second", models) == ["second", "first"]


def test_a_missing_module_says_what_to_do(models: str) -> None:
    with pytest.raises(ConfigurationError, match=r"entities\[1\]: no module 'nowhere'; add its folder to import_paths"):
        names(models, "nowhere")
    with pytest.raises(ConfigurationError, match=rf"entities\[0\]: no module '{models}.deeper'"):
        names(f"{models}.deeper")


@pytest.mark.parametrize("name", ["", ".relative", "a b", "x:"])
def test_what_is_no_module_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"entities\[0\]"):
        names(name)


def test_an_unknown_class_is_refused_with_the_known_ones(models: str) -> None:
    with pytest.raises(ConfigurationError, match="'Secnd' is not known, did you mean 'Second'"):
        names(f"{models}:Secnd")
    with pytest.raises(ConfigurationError, match="class 'helper' is not known"):
        names(f"{models}:helper")


def test_a_module_without_entities_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"entities\[0\]: the module 'json' has no class under @entity"):
        names("json")


def test_what_is_wrong_inside_a_module_is_said_as_it_is(directory: Path, models: str) -> None:
    (directory / "src" / f"{models}_a.py").write_text("import not_installed_here")
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        names(f"{models}_a")
    wrong = "from polystore.entity import entity\n@entity(name='BAD')\nclass Bad: pass\n"
    (directory / "src" / f"{models}_b.py").write_text(wrong)
    with pytest.raises(EntityError):
        names(f"{models}_b")


def test_the_roles_are_those_of_the_selector() -> None:
    assert set(ROLES) == set(PREFERENCES)
