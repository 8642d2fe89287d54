"""Applies known techniques, as commits on the unmodified course that are merged onto the incumbent.

First each technique by itself, in the catalogue's order. Then what looks best by what was measured: pairs
of techniques, and techniques again on an incumbent they have not met.
"""

import re
from collections.abc import Iterator, Sequence

from agentgolf.domain import Outcome, Proposal, TrialSummary
from agentgolf.errors import ProposerExhaustedError
from agentgolf.proposer.base import Context, taken, was_measured
from agentgolf.proposer.catalogue import Technique

# What one more try of the same thing costs in the ranking, in bpb: about the seed noise.
RETRY_PENALTY_BPB = 0.004
# What a technique that did not fit the cap may be worth once another frees bytes for it.
OVERSIZED_HOPE_BPB = 0.02
# What an untried or failed technique counts for.
UNKNOWN_GAIN_BPB = 0.0

# The part of a technique's words that a suggestion must have to mean it.
MEANT_SHARE = 0.4
FILLERS = frozenset(
    ("a", "an", "and", "the", "of", "for", "to", "with", "at", "in", "on", "instead", "try", "use", "each", "one")
)

Combination = tuple[str, ...]


class PlaybookProposer:
    name = "playbook"

    def __init__(self, techniques: Sequence[Technique]) -> None:
        self._techniques = {technique.name: technique for technique in techniques}

    def propose(self, context: Context) -> Proposal:
        meant = self._meant(context)
        chosen = (meant,) if meant else self._choose(context)
        pages = [self._techniques[name] for name in chosen]
        return Proposal(
            hypothesis=" + ".join(page.title for page in pages),
            edits=tuple(page.diff for page in pages),
            base=context.origin,
            proposer=self.name,
            technique="+".join(chosen),
            detail={"techniques": list(chosen), **(taken(context) if meant else {})},
        )

    def _meant(self, context: Context) -> str | None:
        """The technique that a person's suggestion names, by its title's or its own words; the likest, if several."""
        said = _words(context.suggestion.text) if context.suggestion else set()
        likeness = {
            name: len(said & (_words(page.title) | _words(name))) / len(_words(page.title) | _words(name))
            for name, page in self._techniques.items()
            if name not in self._kept(context)
        }
        best = max(likeness, key=lambda name: likeness[name], default=None)
        return best if best is not None and likeness[best] >= MEANT_SHARE else None

    def _choose(self, context: Context) -> Combination:
        mine = [trial for trial in context.history if trial.proposer == self.name]
        tried: dict[Combination, list[TrialSummary]] = {}
        for trial in mine:
            tried.setdefault(_combination(trial), []).append(trial)
        for name in self._techniques:
            if (name,) not in tried and name not in self._kept(context):
                return (name,)
        options = [c for c in self._options(context) if all(t.parent != context.parent for t in tried.get(c, []))]
        if not options:
            raise ProposerExhaustedError("every technique and pair was tried on this incumbent")
        return max(options, key=lambda c: (self._promise(c, tried), [-self._techniques[n].order for n in c]))

    def _kept(self, context: Context) -> set[str]:
        return {name for trial in context.lineage if trial.proposer == self.name for name in _combination(trial)}

    def _options(self, context: Context) -> Iterator[Combination]:
        free = [name for name in self._techniques if name not in self._kept(context)]
        for i, name in enumerate(free):
            yield (name,)
            for other in free[i + 1 :]:
                yield name, other

    def _promise(self, combination: Combination, tried: dict[Combination, list[TrialSummary]]) -> float:
        """Expected gain: the sum of what its members gave alone, less a bit for each try already made."""
        total = -RETRY_PENALTY_BPB * len(tried.get(combination, []))
        oversized = [n for n in combination if _last_outcome(tried.get((n,), [])) is Outcome.OVERSIZED]
        frees = any(self._techniques[name].bytes == "frees" for name in combination)
        for name in combination:
            if name in oversized:
                total += OVERSIZED_HOPE_BPB if frees else -1.0
            else:
                total += _last_gain(tried.get((name,), []))
        # A pair must promise more than its better half, or it is two changes for the price of none.
        return total - RETRY_PENALTY_BPB * (len(combination) - 1)


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in FILLERS}


def _combination(trial: TrialSummary) -> Combination:
    names = trial.detail.get("techniques", [])
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _last_outcome(trials: Sequence[TrialSummary]) -> Outcome | None:
    return trials[-1].outcome if trials else None


def _last_gain(trials: Sequence[TrialSummary]) -> float:
    measured = [trial for trial in trials if was_measured(trial)]
    if not measured:
        return UNKNOWN_GAIN_BPB
    gain = measured[-1].gain_bpb
    return gain if gain is not None else -RETRY_PENALTY_BPB
