"""How glad or sad a text sounds: its words, looked up in `moods.toml`."""

import re
import tomllib
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

_WORD = re.compile(r"[가-힣]+|[a-z]+(?:'[a-z]+)?")
_LISTS: dict[str, str] = tomllib.loads(Path(__file__).with_name("moods.toml").read_text(encoding="utf-8"))


def _in(name: str) -> Callable[[str], object]:
    """Whether a word is in a list."""
    entries = [f"{entry[:-1]}$" if entry.endswith("=") else entry for entry in _LISTS[name].split()]
    return re.compile("|".join(entries)).match


_good, _bad, _turns_next, _turns_last = map(_in, ("good", "bad", "after", "before"))


@lru_cache(maxsize=1 << 16)
def _feeling(word: str) -> int:
    return 1 if _good(word) else -1 if _bad(word) else 0


def valence(text: str) -> float:
    """From -1, all its words of feeling are sad, to 1, all are glad; 0 where there are none, or as many."""
    words = ["", *_WORD.findall(unicodedata.normalize("NFC", text).lower().replace("’", "'")), ""]
    felt = [
        -feeling if _turns_next(words[at - 1]) or _turns_last(words[at + 1]) else feeling
        for at, word in enumerate(words)
        if (feeling := _feeling(word))
    ]
    return sum(felt) / len(felt) if felt else 0.0
