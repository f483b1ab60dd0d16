"""Replies of a language model, from a real server that speaks OpenAI's API; when it fails, memory answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent import models
from agent.models import Model, ModelFailed, Said

from tests import agent_child
from tests.chat_server import ChatServer, Reply, chat_server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as made:
        yield made


def reply(model: Model) -> str:
    return asyncio.run(model.reply([Said("user", "안녕")]))


def test_the_agent_says_what_the_model_says_and_tells_it_what_it_remembers(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-geheim")
    shown = agent_child.run("--data", tmp_path, "--llm", server.url)
    assert "agent › You said: 주말에 뭐 할까?" in shown
    assert "said by first" in shown
    assert "민지 said “주말에 뭐 할까?”" in shown
    second = server.requests[1]
    assert second["model"] == "first"
    assert "토요일에는 한강에서 자전거를 타고" in second["messages"][0]["content"]
    assert "They write Korean." in second["messages"][0]["content"]
    assert [one["content"] for one in second["messages"][1:]] == [
        "오늘 너무 힘들어",
        "You said: 오늘 너무 힘들어",
        "주말에 뭐 할까?",
    ]
    assert set(server.keys) == {"Bearer sk-geheim"}
    assert "geheim" not in shown


def test_the_model_that_was_named_is_asked_and_no_key_is_sent_where_there_is_none(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "said by mine" in agent_child.run("--data", tmp_path, "--llm", f"{server.url}/", "--model", "mine")
    assert {request["model"] for request in server.requests} == {"mine"}
    assert set(server.keys) == {None}


def test_when_the_model_fails_memory_answers_and_it_is_said_why(server: ChatServer, tmp_path: Path) -> None:
    server.replies.append((500, b"Traceback: sk-secret"))
    shown = agent_child.run("--data", tmp_path, "--llm", server.url)
    trouble = "The model does not answer: it answered HTTP 500. From memory, then:\nagent › 고생했어."
    assert trouble in shown
    assert "secret" not in shown
    assert "agent › You said: 주말에 뭐 할까?" in shown
    assert "Traceback" not in shown


FAILURES: dict[str, tuple[Reply, str]] = {
    "no JSON": ((200, b"<html>"), "is no chat completion"),
    "another JSON": ((200, b'{"answer": "hi"}'), "is no chat completion"),
    "no UTF-8": ((200, b'{"choices": [{"message": {"content": "\xff"}}]}'), "is no chat completion"),
    "no choice": ((200, b'{"choices": []}'), "it said nothing"),
    "nothing said": ((200, b'{"choices": [{"message": {"content": null}}]}'), "it said nothing"),
    "limited": ((429, b""), "it answered HTTP 429"),
    "elsewhere": ((302, b""), "it answered HTTP 302"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_the_server_answers_is_a_reason_and_no_traceback(failure: str, server: ChatServer) -> None:
    answered, reason = FAILURES[failure]
    server.replies.append(answered)
    with pytest.raises(ModelFailed, match=reason):
        reply(Model(server.url, "m", None))


def test_what_would_steer_a_terminal_is_left_out(server: ChatServer) -> None:
    server.replies.append((200, rb'{"choices": [{"message": {"content": "\u001b[2J one\ntwo\u0007\u202e"}}]}'))
    assert reply(Model(server.url, "m", None)) == "[2J one two"


UNREACHABLE: dict[str, Callable[[str], str]] = {
    "nobody listens": lambda url: "http://127.0.0.1:1/v1",
    "no host": lambda url: "http://",
    "no URL": lambda url: "http://[::1",
    "another scheme": lambda url: "ftp://127.0.0.1/v1",
    "another path": lambda url: f"{url}/v2",
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_server_that_is_not_there(case: str, server: ChatServer) -> None:
    with pytest.raises(ModelFailed, match=r"it cannot be reached|HTTP 404"):
        reply(Model(UNREACHABLE[case](server.url), "m", None))


def test_a_key_that_no_header_can_hold(server: ChatServer) -> None:
    with pytest.raises(ModelFailed, match="it cannot be reached"):
        reply(Model(server.url, "m", "열쇠\n"))


def test_a_server_without_models(server: ChatServer) -> None:
    server.listed = []
    with pytest.raises(ModelFailed, match="name one with --model"):
        reply(Model(server.url, None, None))


def test_a_model_that_takes_too_long(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "TIMEOUT_S", 0.05)
    server.go_on.clear()
    with pytest.raises(ModelFailed, match="no answer in time"):
        reply(Model(server.url, "m", None))
