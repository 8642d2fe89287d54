"""How alike two diffs are. Pure functions."""

import difflib
import re

_TOKEN = re.compile(r"\w+|[^\w\s]")
# Matching takes the product of the two lengths.
MAX_TOKENS = 3000


def changed_tokens(diff: str) -> list[str]:
    """What a diff removes and adds, as marked tokens; comments of Python, blanks and places do not count."""
    tokens: list[str] = []
    for line in diff.splitlines():
        if line[:1] in ("+", "-") and not line.startswith(("+++ ", "--- ")):
            tokens += [line[0] + token for token in _TOKEN.findall(line[1:].split("#")[0])]
    return tokens[:MAX_TOKENS]


def distance(one: str, other: str) -> float:
    """0 for diffs that change the same alike, 1 for those that share nothing."""
    first, second = changed_tokens(one), changed_tokens(other)
    if not first and not second:
        return 0.0
    return 1.0 - difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
