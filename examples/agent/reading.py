"""Conversations from files: CSV, JSON lines, plain text. A file is read as a whole before anything of it is remembered,
so that a file with a mistake in it leaves nothing behind."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

PAIRS = ("q", "a")
TURNS = ("speaker", "text")
ENCODINGS = {"utf-8-sig": "UTF-8", "cp949": "CP949"}


class UnreadableInput(Exception):
    """The file is no conversation. The message says which file, where in it, and what is needed."""


class Line(msgspec.Struct, frozen=True):
    """Something said. `answers`: it is the reply to the line before."""

    speaker: str
    text: str
    answers: bool


class Conversation(msgspec.Struct, frozen=True):
    """`name`: of the file, without its ending. `digest`: of its content."""

    name: str
    digest: str
    encoding: str
    lines: list[Line]


class _Said(msgspec.Struct, frozen=True):
    speaker: str
    text: str


class _BadLine(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def read(path: Path) -> Conversation:
    """The conversation in a file, its kind by the ending of the name: .csv with the columns Q and A, or speaker and
    text; .jsonl with {"speaker": ..., "text": ...} on each line; else lines of "speaker: text".

    Raises UnreadableInput.
    """
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise UnreadableInput(f"{path} cannot be read: {e.strerror}") from e
    text, encoding = _decoded(raw, path)
    parse = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(path.suffix.lower(), _plain)
    try:
        lines = list(_lines(parse(text)))
    except _BadLine as e:
        raise UnreadableInput(f"{path}, line {e.number}: {e}") from e.__cause__
    if not lines:
        raise UnreadableInput(f"{path} is empty: nothing was said in it")
    return Conversation(path.stem, hashlib.sha256(raw).hexdigest()[:16], encoding, lines)


def _decoded(raw: bytes, path: Path) -> tuple[str, str]:
    for codec, name in ENCODINGS.items():
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, name
    raise UnreadableInput(f"{path} is neither UTF-8 nor CP949 text; save it as UTF-8")


def _lines(said: Iterable[_Said | None]) -> Iterator[Line]:
    """Who speaks after somebody else answers; nobody answers across None."""
    before = ""
    for one in said:
        speaker, text = (one.speaker.strip(), one.text.strip()) if one else ("", "")
        if text:
            yield Line(speaker, text, before not in ("", speaker))
        if text or not one:
            before = speaker


def _csv(text: str) -> Iterator[_Said | None]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, ())]
        columns = next((known for known in (PAIRS, TURNS) if set(known) <= set(header)), None)
        if columns is None:
            raise _BadLine(1, f"the columns are {', '.join(header) or 'missing'}; needed: Q and A, or speaker and text")
        one, other = map(header.index, columns)
        for row in filter(None, rows):
            if len(row) != len(header):
                raise _BadLine(rows.line_num, f"{len(row)} columns; the first line has {len(header)}")
            if columns is PAIRS:
                yield from (_Said("Q", row[one]), _Said("A", row[other]), None)
            else:
                yield _Said(_speaker(row[one], rows.line_num), row[other])
    except csv.Error as e:
        raise _BadLine(rows.line_num, f"this is not CSV: {e}") from e


def _json_lines(text: str) -> Iterator[_Said]:
    decoder = msgspec.json.Decoder(_Said)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                said = decoder.decode(line)
            except msgspec.DecodeError as e:
                raise _BadLine(number, f'{e}; needed: {{"speaker": "...", "text": "..."}}') from e
            yield _Said(_speaker(said.speaker, number), said.text)


def _plain(text: str) -> Iterator[_Said | None]:
    """An empty line ends a conversation; the next one begins anew."""
    for number, line in enumerate(text.split("\n"), 1):
        speaker, colon, said = line.partition(":")
        if colon:
            yield _Said(_speaker(speaker, number), said)
        elif line.strip():
            raise _BadLine(number, "needed: speaker: text")
        else:
            yield None


def _speaker(name: str, number: int) -> str:
    if not name.strip():
        raise _BadLine(number, "nobody is named as the speaker")
    return name
