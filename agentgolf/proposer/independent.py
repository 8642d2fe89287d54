"""Independent draws: a technique, or new values of some constants, by chance alone. A control for cleverer ones."""

import hashlib
import math
import random
from collections.abc import Sequence

from agentgolf.domain import Proposal
from agentgolf.errors import ProposerExhaustedError
from agentgolf.proposer.base import Context, diffs_of
from agentgolf.proposer.catalogue import Technique
from agentgolf.proposer.constants import Constant, find_constants, format_number, replace_constants

MAX_CHANGED = 3


class IndependentProposer:
    """Reads no history: its draws depend on the run's seed and the trial's number alone."""

    name = "iid"

    def __init__(self, techniques: Sequence[Technique]) -> None:
        self._techniques = tuple(techniques)

    def propose(self, context: Context) -> Proposal:
        digest = hashlib.sha256(f"iid:{context.run_seed}:{context.number}".encode()).digest()
        chance = random.Random(int.from_bytes(digest[:8], "big"))
        constants = [(path, one) for path, text in sorted(context.files.items()) for one in find_constants(text)]
        if chance.random() < 0.5 or not constants:
            return self._technique(context, chance)
        chosen = chance.sample(constants, min(len(constants), chance.randint(1, MAX_CHANGED)))
        drawn = [(path, one, _draw(one, chance)) for path, one in chosen]
        new = {
            path: replace_constants(text, {one.name: value for where, one, value in drawn if where == path})
            for path, text in context.files.items()
        }
        said = ", ".join(
            f"{one.name} {format_number(one.value, one.is_int)} -> {format_number(value, one.is_int)}"
            for _, one, value in drawn
        )
        edit = "".join(diffs_of(context.files, new))
        return Proposal(hypothesis=said, edits=(edit,), proposer=self.name, technique="tune")

    def _technique(self, context: Context, chance: random.Random) -> Proposal:
        if not self._techniques:
            raise ProposerExhaustedError("there is no technique and no constant to draw from")
        page = chance.choice(self._techniques)
        return Proposal(
            hypothesis=page.title,
            edits=(page.diff,),
            base=context.origin,
            proposer=self.name,
            technique=page.name,
        )


def _draw(constant: Constant, chance: random.Random) -> float:
    """Uniform over its range, on a logarithmic scale where it has one."""
    if constant.log:
        value = math.exp(chance.uniform(math.log(constant.low), math.log(constant.high)))
    else:
        value = chance.uniform(constant.low, constant.high)
    return float(format_number(value, constant.is_int))
