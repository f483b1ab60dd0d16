"""Topics: words that a conversation comes back to, found by counting."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

FORMS_MIN = 4
"""A Korean noun is met in many forms, with one particle or another (친구, 친구가, 친구를), a verb's stem in few: so
many make a topic. In a short conversation, where nothing is met often, two."""
SHORT = 1_000

_WORD = re.compile(r"[가-힣]{2,}|[a-z]{4,}")
_PARTICLES = (
    "에게서|한테서|으로부터|이라고|에서는|에서도|이라도|으로는|에게|한테|에서|까지|부터|보다|처럼|마다|조차|밖에|이랑|하고|으로|"
    "에는|에도|이나|라도|이라|은|는|이|가|을|를|의|에|도|만|로|와|과|랑|나"
)
_NOUN = re.compile(rf"([가-힣]{{2,}}?)(?:{_PARTICLES})?")
_COMMON = re.compile(
    "about|after|again|also|always|another|because|been|before|begin|being|best|better|both|could|does|doing|done|down|"
    "each|else|even|ever|every|feel|find|first|from|gets|getting|give|goes|going|gone|good|great|have|having|here|into|"
    "just|keep|kind|know|last|leave|less|like|little|long|look|made|make|many|maybe|mean|more|most|much|must|need|"
    "never|next|nice|once|only|other|over|quite|really|right|said|same|says|seem|should|since|small|some|someone|"
    "something|soon|still|such|sure|take|tell|than|thanks?|that|their|them|then|there|these|they|things?|think|this|"
    "those|thought|time|today|told|tomorrow|took|under|until|very|wants?|well|went|were|what|when|where|which|while|"
    "will|with|without|would|yeah|year|yesterday|yours?|yourself"
)


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """The word without its particle."""
    found = _NOUN.fullmatch(word)
    return found[1] if found else word


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def find_topics(texts: Sequence[str]) -> frozenset[str]:
    """The words that a conversation is about."""
    times: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for word, n in Counter(_words("\n".join(texts))).items():
        stem = _stem(word)
        times[stem] += n
        forms[stem] += 1
    often = 2 + len(texts) // 5_000
    enough = 2 if len(texts) < SHORT else FORMS_MIN
    return frozenset(
        stem
        for stem, n in times.items()
        if n >= often and not _COMMON.fullmatch(stem) and (stem.isascii() or forms[stem] >= enough)
    )


def candidates(text: str) -> list[str]:
    """The words of a text that can be topics, each once, in order."""
    return list(dict.fromkeys(_stem(word) for word in _words(text)))


def about(text: str, topics: Collection[str]) -> list[str]:
    """The topics that a text is about."""
    return [stem for stem in candidates(text) if stem in topics]
