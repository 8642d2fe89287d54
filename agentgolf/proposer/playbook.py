"""Applies known techniques, as commits on the unmodified course that are merged onto the incumbent.

First each technique by itself, in the catalogue's order. Then what looks best by what was measured: pairs
of techniques, and techniques again on an incumbent they have not met.
"""

from collections.abc import Iterator, Sequence

from agentgolf.domain import Outcome, Proposal, TrialSummary
from agentgolf.errors import ProposerExhaustedError
from agentgolf.proposer.base import Context, was_measured
from agentgolf.proposer.catalogue import Technique

# What one more try of the same thing costs in the ranking, in bpb: about the seed noise.
RETRY_PENALTY_BPB = 0.004
# What a technique that did not fit the cap may be worth once another frees bytes for it.
OVERSIZED_HOPE_BPB = 0.02
# What an untried or failed technique counts for.
UNKNOWN_GAIN_BPB = 0.0

Combination = tuple[str, ...]


class PlaybookProposer:
    name = "playbook"

    def __init__(self, techniques: Sequence[Technique]) -> None:
        self._techniques = {technique.name: technique for technique in techniques}

    def propose(self, context: Context) -> Proposal:
        chosen = self._choose(context)
        pages = [self._techniques[name] for name in chosen]
        return Proposal(
            hypothesis=" + ".join(page.title for page in pages),
            edits=tuple(page.diff for page in pages),
            base=context.origin,
            proposer=self.name,
            technique="+".join(chosen),
            detail={"techniques": list(chosen)},
        )

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
