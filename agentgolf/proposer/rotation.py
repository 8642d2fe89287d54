"""Takes turns between proposers; one that has nothing left is passed over."""

from collections.abc import Sequence

from agentgolf.domain import Proposal
from agentgolf.errors import ProposerExhaustedError
from agentgolf.proposer.base import Context, Proposer


class RotationProposer:
    """`turns` gives how many proposals in a row each proposer makes."""

    name = "rotation"

    def __init__(self, proposers: Sequence[Proposer], turns: Sequence[int]) -> None:
        self._order = [proposer for proposer, count in zip(proposers, turns, strict=True) for _ in range(count)]

    def propose(self, context: Context) -> Proposal:
        first = (context.number - 1) % len(self._order)
        passed: set[str] = set()
        for proposer in self._order[first:] + self._order[:first]:
            if proposer.name in passed:
                continue
            try:
                return proposer.propose(context)
            except ProposerExhaustedError:
                passed.add(proposer.name)
        raise ProposerExhaustedError("no proposer has anything left to propose")
