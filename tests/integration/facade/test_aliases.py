"""The names by which others ask stores past polystore follow what serves, and are in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import pytest
from polystore_adapters.memory import MemoryRepository, forget_servers

from polystore import HybridDataArchitecture, Unavailable
from polystore.env import Env
from tests.aliased import Aliased
from tests.growing import SETTINGS, Tree, found, over, until

R = TypeVar("R")
STORES: dict[str, Any] = {
    "main": {"url": "memory:main", "roles": ["home", "vector"]},
    "words": {"url": "memory:words", "roles": ["full_text"]},
}


class Down(Aliased):
    async def take_alias(self, etypes: Sequence[str], create: bool) -> None:
        raise Unavailable("it takes no name")


class AliasedEnv(Env):
    """The real world, whose stores have names in `names`, by store; `cls` says how they take them."""

    def __init__(self, names: dict[str, dict[str, str]], cls: type[Aliased] = Aliased) -> None:
        super().__init__()
        self.names = names
        self.cls = cls
        self.passed: list[tuple[str, str]] = []

    def connected(self, store: str, repository: R) -> R:
        assert isinstance(repository, MemoryRepository)
        names = self.names.setdefault(store.removesuffix("~2"), {})
        return cast(R, self.cls(repository.server, self, names, store))

    def crashpoint(self, name: str) -> None:
        if name.startswith("move."):
            self.passed.append((name, self.names["words"]["tree"]))


class Overtaken(AliasedEnv):
    """A process that goes over late sets the name back when this one has changed over: the second of three steps."""

    def crashpoint(self, name: str) -> None:
        super().crashpoint(name)
        if [one for one, _ in self.passed].count("move.gone_over") == 2 and name == "move.gone_over":
            self.names["words"]["tree"] = "words~2"


@pytest.fixture(autouse=True)
def _empty() -> None:
    forget_servers()


def opening(env: AliasedEnv, **more: Any) -> Any:
    return HybridDataArchitecture.open({"stores": STORES}, entities=[Tree], settings=SETTINGS, env=env, **more)


def test_a_name_stands_for_what_serves_from_the_first_open_and_follows_it_there_and_back() -> None:
    async def main() -> None:
        env = AliasedEnv({})
        async with opening(env) as hda:
            assert env.names == {"main": {"tree": "main"}, "words": {"tree": "words"}}
            await hda.collection(Tree).put_many([Tree(id=f"t{i}", text="나무") for i in range(30)])
            await hda.settle(30)
            await hda.rebuild_copies("words")
            assert env.names == {"main": {"tree": "main"}, "words": {"tree": "words~2"}}
            switched = env.passed.index(("move.compared", "words")) + 3
            before, after = env.passed[:switched], env.passed[switched:]
            assert {name for _, name in before} == {"words"}
            assert before[-1][0] == "move.remembered", "first the journal says it"
            assert {name for _, name in after} == {"words~2"}
            await hda.rebuild_copies("words", rollback=True)
            assert env.names["words"] == {"tree": "words"}

    asyncio.run(main())


def test_a_name_that_cannot_be_moved_holds_nobody_up_and_another_process_moves_it() -> None:
    async def main() -> None:
        names: dict[str, dict[str, str]] = {}
        async with opening(AliasedEnv(names, Down)) as one:
            assert names["words"] == {}
            assert any("past polystore" in problem for problem in one.manager.problems)
            await one.collection(Tree).put(Tree(id="a", text="나무"))
            await one.settle(30)
            async with opening(AliasedEnv(names)) as two:
                assert names["words"] == {"tree": "words"}
                await one.rebuild_copies("words")
                assert await found(one) == ({"a"}, "words~2")
                await until(lambda: names["words"] == {"tree": "words~2"})
                await over(two)

    asyncio.run(main())


def test_a_name_that_was_left_behind_is_set_right_at_open_and_again_when_the_move_ends() -> None:
    async def main() -> None:
        env = AliasedEnv({})
        async with opening(env) as hda:
            await hda.collection(Tree).put(Tree(id="a", text="나무"))
            await hda.settle(30)
            await hda.rebuild_copies("words")
        env.names["words"]["tree"] = "words"
        async with opening(env, schema="validate") as hda:
            assert env.names["words"] == {"tree": "words"}, "it is compared, and nothing is changed"
            assert [one for one in hda.manager.problems if "words~2" in one and "past polystore" in one]
            assert await found(hda) == ({"a"}, "words~2")
        late = Overtaken(env.names)
        async with opening(late) as hda:
            assert late.names["words"] == {"tree": "words~2"}
            await hda.rebuild_copies("words", rollback=True)
        assert late.passed[-2:] == [("move.remembered", "words~2"), ("move.gone_over", "words")]

    asyncio.run(main())
