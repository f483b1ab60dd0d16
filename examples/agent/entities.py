"""What the agent remembers."""

from dataclasses import dataclass, field
from typing import Annotated

from polystore import Embedding, FullText, Index, Relation, entity


@entity()
@dataclass(kw_only=True)
class Source:
    """A conversation that was read. The same name with another content is another edition of it."""

    id: str  # the name
    edition: int
    digest: str
    messages: int  # at most so many are remembered
    complete: bool


@entity()
@dataclass(kw_only=True)
class Person:
    id: str  # the name


@entity()
@dataclass(kw_only=True)
class Topic:
    id: str  # the word


@entity(data_type="conversation")
@dataclass(kw_only=True)
class Message:
    id: str  # source and position, so that importing a conversation again changes nothing
    source: Annotated[str, Index()]
    speaker: Annotated[str, Relation("SAID_BY", to=Person)]
    text: Annotated[str, FullText(), Embedding()]
    reply_to: Annotated[str | None, Relation("REPLY_TO", to="Message")] = None
    about: Annotated[list[str], Relation("ABOUT", to=Topic)] = field(default_factory=list[str])
