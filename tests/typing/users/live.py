"""A user's game: who stands where, how often, how fast; and mistakes that a checker must find in such code."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_type

from polystore import Allowance, Channel, HybridDataArchitecture, KeyValue, Limiter, State, Subscription, entity


@entity(data_type="live_state", ttl_s=60)
@dataclass(frozen=True)
class Player:
    id: str
    room: str = "hall"
    steps: int = 0
    speed: float = 1.0


@dataclass
class Said:
    player: str
    text: str


class Game:
    def __init__(self, hda: HybridDataArchitecture, tenant: str) -> None:
        view = hda.tenant(tenant)
        self.players: State[Player] = view.state(Player)
        self.words: Channel[Said] = view.channel("words", type=Said)
        self.chat: Limiter = view.limiter("chat", limit=2, per_s=60, kind="token_bucket", burst=2)

    async def step(self, id: str) -> tuple[int, float]:
        steps = await self.players.incr(id, "steps")
        assert_type(steps, int)
        speed = await self.players.incr(id, "speed", 0.5, ttl_s=5)
        assert_type(speed, float)
        return steps, speed

    async def go(self, id: str, room: str) -> Player:
        moved = await self.players.update(id, lambda player: replace(player, room=room))
        assert_type(moved, Player)
        assert_type(await self.players.get(id), Player | None)
        assert_type(await self.players.get_many([id]), Sequence[Player | None])
        assert_type(self.players.stream_keys(), AsyncIterator[KeyValue])
        return await self.players.update(id, {"room": room})

    async def say(self, id: str, text: str) -> bool:
        allowance = await self.chat.take(id)
        assert_type(allowance, Allowance)
        if allowance.allowed:
            await self.words.publish(Said(id, text))
        return allowance.allowed

    async def hear(self, count: int, ready: asyncio.Event) -> list[str]:
        heard: list[str] = []
        async with self.words.subscribe() as messages:
            assert_type(messages, Subscription[Said])
            ready.set()
            async for said in messages:
                assert_type(said, Said)
                heard.append(said.text)
                if len(heard) == count:
                    break
        return heard


async def mistakes(game: Game, hda: HybridDataArchitecture) -> None:
    await game.players.put(Said("a", "b"))  # type: ignore[arg-type]
    await game.players.update("a", lambda player: player.room)  # type: ignore[arg-type,return-value]
    await game.players.incr("a", "steps", "1")  # type: ignore[call-overload]
    await game.players.find()  # type: ignore[attr-defined]
    await game.words.publish("text")  # type: ignore[arg-type]
    await game.chat.take(1.5)  # type: ignore[arg-type]
    hda.limiter("x", limit=1, per_s=1, kind="fixed_window")  # type: ignore[arg-type]


async def main(config: str) -> tuple[tuple[int, float], str, list[bool], list[str]]:
    async with HybridDataArchitecture.open(config, entities=[Player]) as hda:
        game = Game(hda, "acme")
        stepped = await game.step("minji")
        room = (await game.go("minji", "garden")).room
        ready = asyncio.Event()
        hearing = asyncio.create_task(game.hear(2, ready))
        await ready.wait()
        said = [await game.say("minji", text) for text in ("안녕", "여기야", "들려?")]
        return stepped, room, said, await hearing
