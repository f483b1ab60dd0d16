"""What the agent remembers, and as what kind of data. A class says what it is for; where it lives follows from that."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar

from polystore import Edge, Embedding, F, FileRef, FullText, Index, Measure, Relation, entity, new_id

AGENT, USER = "agent", "you"
CHAT = "/chat"
"""The source of what is said in the chat; no file has this name."""
ECHO = (F.source == CHAT) & (F.speaker == AGENT)
"""The messages that the agent said. They are no memories of its own: answers would come from answers."""

# -- records: versioned, delivered to every copy -----------------------------------------------------------------


@dataclass
class Exchange:
    """How often somebody answered somebody else."""

    who: str
    whom: str
    times: int


@entity()
@dataclass(kw_only=True)
class Source:
    """A conversation that was read. The same name with another content is another edition of it."""

    id: str  # the name
    edition: int
    digest: str
    messages: int  # at most so many are remembered
    complete: bool
    began: (
        datetime  # a file says no times: its messages are taken to be a minute apart, the last when it was first read
    )
    exchanges: list[Exchange] = field(default_factory=list[Exchange])


@dataclass
class Weight:
    """Of an edge: how often the one answered the other."""

    weight: int


@entity()
@dataclass(kw_only=True)
class Person:
    """Whoever says something. What can be counted over time are points beside the record."""

    id: str  # the name
    knows: Annotated[list[Edge[Weight]], Relation("KNOWS", to="Person")] = field(default_factory=list[Edge[Weight]])

    valence: ClassVar[Measure[float]] = Measure(float, unit="from -1, sad, to 1, glad")
    length: ClassVar[Measure[int]] = Measure(int, unit="characters")
    answer_ms: ClassVar[Measure[float]] = Measure(float, unit="ms")


@entity(data_type="user_profile")
@dataclass(kw_only=True)
class Profile:
    """What stays true of somebody the agent talks to, and of the agent."""

    id: str  # the person's
    since: datetime
    language: str = ""  # "Korean" or "English", as they last wrote
    about: str = ""  # in words for a language model


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


@entity(cache="off")  # what is asked before content is saved again has to be the truth
@dataclass(kw_only=True)
class Attachment:
    """A file that came with a message; both have the same id. The content is no part of the record."""

    id: str
    to: Annotated[str, Relation("ATTACHED_TO", to=Message)]
    name: str
    content: FileRef


# -- state: changes all the time, in place; a log: is appended and stays as it is ----------------------------------


@entity(data_type="live_state")
@dataclass(kw_only=True)
class Presence:
    """How somebody is just now."""

    id: str = ""  # the person's
    mood: float = 0.0
    topic: str | None = None
    last_seen: datetime | None = None
    session: str = ""
    turns: int = 0


@entity(data_type="session", ttl_s=1800)
@dataclass(kw_only=True)
class Session:
    """A visit. It is over when nothing was said for half an hour."""

    id: str = field(default_factory=new_id)
    user: str = ""
    began: datetime | None = None
    turns: int = 0


@entity(data_type="log", ttl_s=90 * 86_400)
@dataclass(kw_only=True)
class Deed:
    """Something the agent did."""

    id: str = field(default_factory=new_id)
    at: datetime
    what: Annotated[str, FullText()]
    ms: float
