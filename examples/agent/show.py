"""What the chat shows, as tables of rich."""

from collections.abc import Mapping, Sequence

from rich.bar import Bar
from rich.table import Column, Table
from rich.text import Text

from agent.entities import Attachment, Deed
from agent.feelings import Span
from agent.memory import Found
from agent.portraits import Portrait
from agent.stores import StoreReport
from polystore.layers.tracing import Step
from polystore.text import MARK_CLOSE, MARK_OPEN

BAR = 20


def memories(found: Sequence[Found]) -> Table:
    table = Table("words", "meaning", "who", "what", "from")
    for one in found:
        message = one.hit.value
        fragments = one.hit.highlights.get("text") or [message.text]
        table.add_row(
            _score(one.words), _score(one.meaning), message.speaker, _marked(" … ".join(fragments)), message.id
        )
    return table


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _marked(text: str) -> Text:
    """The text with what matched in bold."""
    shown = Text()
    for piece in text.split(MARK_OPEN):
        match, closed, rest = piece.rpartition(MARK_CLOSE)
        shown.append(match, "bold yellow")
        shown.append(rest if closed else piece)
    return shown


def moods(charts: Mapping[str, Sequence[Span]]) -> Table:
    """Bars to the right are glad, to the left sad; the longest is the strongest shown."""
    most = max((abs(span.valence) for spans in charts.values() for span in spans), default=0) or 1.0
    hours = any(span.at.hour for spans in charts.values() for span in spans)
    table = Table(
        "who",
        "when",
        "mood",
        Column("sad │ glad", justify="center", min_width=BAR),
        "messages",
        "characters",
        "answered in",
    )
    for name, spans in charts.items():
        for at, span in enumerate(spans):
            begin, end = sorted((most, most + span.valence))
            table.add_row(
                "" if at else name,
                f"{span.at:%m-%d %H:%M}" if hours else f"{span.at:%Y-%m-%d}",
                f"{span.valence:+.2f}",
                Bar(2 * most, begin, end, width=BAR, color="green" if span.valence > 0 else "red"),
                f"{span.messages:,}",
                f"{span.length:.0f}",
                "" if span.answer_ms is None else f"{span.answer_ms:.0f} ms",
                end_section=span is spans[-1],
            )
    return table


def portrait(one: Portrait) -> Table:
    table = Table("what", "how often", "on the way", title=f"{one.kind} {one.name}", title_justify="left")
    for topic, times in one.topics:
        table.add_row(
            f"topic {topic}", f"{times}", path(one.path) if one.path and (topic, times) == one.topics[0] else ""
        )
    for found in one.people:
        weight = found.properties.get("weight")
        table.add_row(f"person {found.value.id}", "" if weight is None else f"{weight}", path(found.path))
    return table


def path(steps: Sequence[tuple[str, str, str]]) -> str:
    """Each edge reads from the record that has it."""
    return ", ".join(f"{start} –{relation}→ {end}" for start, relation, end in steps)


def stores(reports: Sequence[StoreReport]) -> Table:
    table = Table("store", "what is there", "status", "owed")
    for one in reports:
        held = "\n".join(f"{role}: {', '.join(names)}" for role, names in one.holds.items())
        table.add_row(one.name, held, one.status, f"{one.owed}")
    return table


def steps(taken: Sequence[Step]) -> Table:
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in taken:
        groups.setdefault((step.store, step.verb), []).append(step)
    table = Table("store", "operation", "calls", "items", "ms")
    for (store, verb), group in groups.items():
        calls, items, ms = len(group), sum(step.n for step in group), sum(step.ms for step in group)
        table.add_row(store, verb, f"{calls}", f"{items}", f"{ms:.1f}")
    return table


def files(attachments: Sequence[Attachment]) -> Table:
    table = Table("file", "type", "bytes", "sha256")
    for one in attachments:
        table.add_row(one.name, one.content.content_type, f"{one.content.size:,}", one.content.sha256[:12])
    return table


def deeds(done: Sequence[Deed]) -> Table:
    table = Table("when", "what", "ms")
    for one in done:
        table.add_row(f"{one.at.astimezone():%Y-%m-%d %H:%M:%S}", one.what, f"{one.ms:,.1f}")
    return table


def mood_word(valence: float) -> str:
    return "glad" if valence > 0.1 else "sad" if valence < -0.1 else "even"
