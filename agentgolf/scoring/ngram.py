"""Q: an interpolated trigram model over a course's training tokens, to draw text from whose entropy is known.

P3(w|uv) = (c(uvw) + a P2(w|v)) / (c(uv.) + a), P2(w|v) = (c(vw) + a P1(w)) / (c(v.) + a), P1(w) = (c(w) + 1) / (N + V):
Dirichlet interpolation (MacKay and Peto 1995). Every level is normalized over the whole vocabulary.
"""

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
STRENGTH = 4.0


class Trigram:
    """`tokens` (n,) are the training text, ids below `vocab_size`; n must be 3 or more."""

    def __init__(self, tokens: npt.ArrayLike, vocab_size: int) -> None:
        self.tokens, self.vocab_size = np.asarray(tokens, np.int64), vocab_size
        t, v = self.tokens, vocab_size
        self._one = np.bincount(t, minlength=v).astype(np.float64)
        # Positions sorted by context, so that the text after a context is a slice to draw from.
        self._next2 = _Followers(t[:-1], t[1:])
        self._next3 = _Followers(t[:-2] * v + t[1:-1], t[2:])
        self._pairs = _Counts(t[:-1] * v + t[1:])
        self._triples = _Counts((t[:-2] * v + t[1:-1]) * v + t[2:])

    def nats(self, tokens: npt.ArrayLike) -> Floats:
        """-log Q of each token but the first, (n - 1,); the second is predicted from one token alone."""
        x, v, a = np.asarray(tokens, np.int64), self.vocab_size, STRENGTH
        one = (self._one[x[1:]] + 1) / (len(self.tokens) + v)
        two = (self._pairs[x[:-1] * v + x[1:]] + a * one) / (self._next2.count(x[:-1]) + a)
        three = (self._triples[(x[:-2] * v + x[1:-1]) * v + x[2:]] + a * two[1:]) / (
            self._next3.count(x[:-2] * v + x[1:-1]) + a
        )
        return -np.log(np.concatenate((two[:1], three)))

    def draw(self, first: int, count: int, rng: np.random.Generator) -> Tokens:
        """`count` tokens, the first of them given."""
        found = [first]
        while len(found) < count:
            found.append(self._draw_one(found, rng))
        return np.array(found, np.int64)

    def _draw_one(self, before: list[int], rng: np.random.Generator) -> int:
        """Each level is a mixture: a follower seen in training, or else the level below."""
        levels = [(self._next2, before[-1])]
        if len(before) > 1:
            levels.insert(0, (self._next3, before[-2] * self.vocab_size + before[-1]))
        for followers, context in levels:
            seen = followers.of(context)
            if rng.random() * (len(seen) + STRENGTH) < len(seen):
                return int(seen[rng.integers(len(seen))])
        total = len(self.tokens) + self.vocab_size
        if rng.random() * total < len(self.tokens):
            return int(self.tokens[rng.integers(len(self.tokens))])
        return int(rng.integers(self.vocab_size))


class _Counts:
    def __init__(self, keys: Tokens) -> None:
        self._keys, self._counts = np.unique(keys, return_counts=True)

    def __getitem__(self, keys: Tokens) -> Floats:
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._counts[at], 0).astype(np.float64)


class _Followers:
    """What came after each context."""

    def __init__(self, contexts: Tokens, following: Tokens) -> None:
        order = np.argsort(contexts, kind="stable")
        self._contexts, self._following = contexts[order], following[order]

    def of(self, context: int) -> Tokens:
        low, high = np.searchsorted(self._contexts, (context, context + 1))
        return self._following[low:high]

    def count(self, contexts: Tokens) -> Floats:
        low, high = np.searchsorted(self._contexts, contexts), np.searchsorted(self._contexts, contexts, "right")
        return (high - low).astype(np.float64)
