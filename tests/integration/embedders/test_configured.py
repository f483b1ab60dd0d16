"""What `[embedders.<name>]` can say, and what is refused before anything is asked."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest

from polystore.config import load_config
from polystore.embedders import EmbedderConfig, make, public
from polystore.embedders.local import LocalEmbedder
from polystore.embedding import HashedEmbedder
from polystore.errors import ConfigurationError, DimensionMismatch

SERVER: dict[str, Any] = {"url": "https://llm.example/v1", "model": "m", "dimension": 4}


def loaded(table: dict[str, Any], **variables: str) -> EmbedderConfig:
    return load_config({"url": "memory:", "embedders": {"own": table}}, variables).embedders["own"]


def test_the_kind_follows_from_what_is_given() -> None:
    assert loaded(SERVER).kind == "openai"
    assert loaded({}).kind == "hashed"
    assert loaded({"kind": "sentence-transformers", "model": "m", "dimension": 4}).kind == "sentence-transformers"


def test_a_key_comes_from_the_environment_and_is_never_shown() -> None:
    one = loaded({**SERVER, "api_key": "${LLM_KEY}"}, LLM_KEY="sk-geheim")
    assert one.api_key == "sk-geheim"
    assert "geheim" not in repr(one)
    assert "geheim" not in repr(make(one))
    assert "geheim" not in repr(public(make(one)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": "m"}, "embedders.own: model= needs the url= of a server"),
        ({"url": "https://h/v1", "model": "m"}, "embedders.own.dimension is missing"),
        ({"url": "https://h/v1", "dimension": 3}, "embedders.own.model is missing"),
        ({"kind": "sentence-transformers", "dimension": 3}, "embedders.own.model is missing"),
        ({"kind": "hashed", "batch_max": 3}, 'embedders.own.batch_max: kind "hashed" has no such setting'),
        ({"kind": "sentence-transformers", "model": "m", "dimension": 3, "api_key": "k"}, "own.api_key: kind"),
        ({**SERVER, "url": "https://user:geheim@h/v1"}, "embedders.own.url: http:// or https://"),
        ({**SERVER, "url": "https://h/v1?key=geheim"}, "embedders.own.url: http:// or https://"),
        ({**SERVER, "url": "ftp://h"}, "embedders.own.url: http:// or https://"),
        ({**SERVER, "timeout_s": 0}, "embedders.own.timeout_s: must be more than 0"),
        ({**SERVER, "calls_per_minute": -1}, "embedders.own.calls_per_minute: must be more than 0"),
        ({**SERVER, "dimension": 9000}, "embedders.own.dimension: must be from 1 to 8192"),
        ({**SERVER, "api_key": "geheim\n"}, "embedders.own.api_key: a key is of visible ASCII characters"),
        ({"kind": "openia"}, "the kind 'openia' is not known, did you mean 'openai'? known: hashed, openai, sentence"),
    ],
)
def test_what_cannot_work_is_said_with_its_place_and_without_secrets(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(table)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "module", "command"),
    [
        (SERVER, "httpx", 'pip install "polystore-hybrid[http]"'),
        (
            {"kind": "sentence-transformers", "model": "m", "dimension": 4},
            "sentence_transformers",
            'pip install "sentence-transformers"',
        ),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_command(
    config: dict[str, Any], module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spec(name: str) -> object | None:
        return None if name == module else object()

    monkeypatch.setattr("polystore.embedders.configured.find_spec", spec)
    with pytest.raises(ConfigurationError) as caught:
        make(EmbedderConfig(**config))
    assert command in str(caught.value)


def test_what_makes_an_embedder_again_is_known_but_for_its_key_and_for_those_of_the_application() -> None:
    assert public(make(EmbedderConfig(**SERVER, api_key="k"))) == EmbedderConfig(kind="openai", **SERVER)
    assert public(HashedEmbedder(7)) == EmbedderConfig(kind="hashed", dimension=7)

    class Own:
        name, dimension, batch_max, chars_max = "own", 3, 1, 10

        async def embed(self, texts: Any, *, purpose: Any) -> Any:
            raise NotImplementedError

    assert public(Own()) is None


# -- sentence-transformers: a stand-in, for the package with its model is too large for a test run -----------------


class Matrix(list[list[float]]):
    def tolist(self) -> list[list[float]]:
        return list(self)


class Model:
    """The part of `SentenceTransformer` that is used."""

    made: list[Model]

    def __init__(self, name: str, truncate_dim: int | None = None) -> None:
        if name == "absent":
            raise OSError("no such model")
        self.truncate_dim = truncate_dim
        self.calls: list[tuple[list[str], int]] = []
        Model.made.append(self)

    def get_sentence_embedding_dimension(self) -> int:
        return self.truncate_dim or 4

    def encode(self, texts: list[str], *, batch_size: int, show_progress_bar: bool) -> Matrix:
        assert not show_progress_bar
        self.calls.append((texts, batch_size))
        return Matrix([[float(len(text))] * self.get_sentence_embedding_dimension() for text in texts])


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Model  # type: ignore[attr-defined]
    Model.made = []
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def local(**more: Any) -> LocalEmbedder:
    given: dict[str, Any] = {"kind": "sentence-transformers", "model": "m", "dimension": 4, **more}
    return LocalEmbedder(EmbedderConfig(**given))


async def _twice(one: LocalEmbedder) -> list[Any]:
    return [await one.embed(["바다", "a"], purpose="document"), await one.embed(["a"], purpose="query")]


@pytest.mark.usefixtures("package")
def test_a_model_in_this_process_is_loaded_once_and_when_first_asked() -> None:
    one = local(query_prefix="q: ", document_prefix="d: ", batch_max=5)
    assert Model.made == []
    assert asyncio.run(_twice(one)) == [[[5.0] * 4, [4.0] * 4], [[4.0] * 4]]
    (model,) = Model.made
    assert model.calls == [(["d: 바다", "d: a"], 5), (["q: a"], 5)]
    assert model.truncate_dim is None


@pytest.mark.usefixtures("package")
def test_a_model_of_another_dimension_or_that_is_not_there_is_said() -> None:
    with pytest.raises(DimensionMismatch, match="makes vectors of 4 components, the configuration says 3"):
        asyncio.run(_twice(local(dimension=3)))
    with pytest.raises(ConfigurationError, match="cannot load 'absent'"):
        asyncio.run(_twice(local(model="absent")))
    assert asyncio.run(_twice(local(dimension=3, shorten=True)))[1] == [[1.0] * 3]
