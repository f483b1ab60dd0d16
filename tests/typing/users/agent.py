"""A user's agent: memories found by words, by form and by whom they are about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, assert_type

from polystore import (
    Edge,
    Embedding,
    F,
    Found,
    FullText,
    Hit,
    HybridDataArchitecture,
    Related,
    Relation,
    entity,
    new_id,
)


@entity()
@dataclass(kw_only=True)
class Person:
    id: str = field(default_factory=new_id)
    name: str


@dataclass
class About:
    weight: float


@entity()
@dataclass(kw_only=True)
class Memory:
    id: str = field(default_factory=new_id)
    agent_id: str
    text: Annotated[str, FullText(), Embedding()]
    about: Annotated[list[Edge[About]], Relation("ABOUT", to="Person")] = field(default_factory=list[Edge[About]])
    importance: float = 0.5
    happened_at: datetime | None = None


def louder(memory: Memory) -> Memory:
    memory.importance += 0.1
    return memory


async def main(config: str) -> list[str]:
    hda = await HybridDataArchitecture.open(config, entities=[Person, Memory])
    memories = hda.collection(Memory)
    await hda.collection(Person).put(Person(id="p1", name="민지"))
    memory = Memory(
        agent_id="a1", text="민지와 이별한 이야기", about=[Edge("p1", About(0.9))], happened_at=datetime.now(UTC)
    )
    result = await memories.put(memory)
    hits = await memories.similar("이별 이야기", where=F.agent_id == "a1", limit=5, after=result.token)
    assert_type(hits, Found[Hit[Memory]])
    said = [hit.value.text for hit in hits]
    fused = await memories.hybrid("이별", where=(F.agent_id == "a1") & F.happened_at.is_null(False), after=result.token)
    said += [fused[0].value.text, *fused[0].highlights["text"]]
    people = await memories.related(memory.id, "ABOUT", into=Person, after=result.token)
    assert_type(people, Sequence[Related[Person]])
    said += [one.value.name for one in people]
    anything = await memories.related(memory.id, "ABOUT", direction="both", depth=2)
    assert_type(anything, Sequence[Related[object]])
    await memories.update(memory.id, louder)
    with hda.trace() as trace:
        latest = await memories.find(F.agent_id.in_(["a1"]), order_by=[F.happened_at.desc(), F.importance], limit=3)
    assert_type(latest, Found[Memory])
    said += [step.verb for step in trace.steps]
    async with hda.transaction() as tx:
        tx.put(Person(id="p2", name="준"))
        tx.delete(Memory, memory.id)
    said.append(str(tx.result[1].existed))
    await hda.write_operation({"core": {"name": "소라"}}, entity=Person, key="p3")
    answer = await hda.read_operation({"kind": "filter", "entity": "person", "where": F.name >= "준", "limit": 5})
    said.append(str(len(answer.items)))
    await hda.settle(10)
    await hda.close()
    return said
