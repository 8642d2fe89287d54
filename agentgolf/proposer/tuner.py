"""Searches the numeric constants of the editable files with Optuna's TPE sampler.

The study is rebuilt from the history at every proposal, so nothing is lost when a run stops. Each proposal
changes one to three constants of the incumbent; what TPE is told is the gain over the parent, so that
trials on different incumbents compare.
"""

import hashlib
import random
import warnings
from collections.abc import Mapping

import optuna

from agentgolf.domain import Outcome, Proposal, TrialSummary
from agentgolf.errors import ProposerExhaustedError
from agentgolf.proposer.base import Context, unified_diff
from agentgolf.proposer.constants import Constant, find_constants, format_number, replace_constants

MAX_CHANGED = 3
MIN_RELATIVE_CHANGE = 0.05
ATTEMPTS = 50
# What a trial that crashed, ran out or was too large counts as, in bpb of gain.
FAILED_GAIN_BPB = -0.05

Distribution = optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution


class TunerProposer:
    name = "tuner"

    def propose(self, context: Context) -> Proposal:
        constants = {
            f"{path}:{constant.name}": constant
            for path, text in sorted(context.files.items())
            for constant in find_constants(text)
        }
        if not constants:
            raise ProposerExhaustedError("the editable files have no numeric constant to tune")
        tried = {_key(trial.detail) for trial in context.history if trial.parent == context.parent}
        for attempt in range(ATTEMPTS):
            seed = _seed(context, attempt)
            chosen = self._sample(context, constants, seed)
            if chosen and _key({"constants": chosen}) not in tried:
                return self._proposal(context, constants, chosen)
        raise ProposerExhaustedError("the tuner found no setting that was not tried on this incumbent")

    def _sample(self, context: Context, constants: Mapping[str, Constant], seed: int) -> dict[str, float]:
        """New values for a few constants; those that round to what they were are left out."""
        pick = random.Random(seed)
        count = pick.randint(1, min(MAX_CHANGED, len(constants)))
        names = sorted(pick.sample(sorted(constants), count))
        study = _study(context, constants, seed)
        asked = study.ask({name: _distribution(constants[name]) for name in names})
        chosen = {}
        for name in names:
            constant = constants[name]
            value = float(format_number(asked.params[name], constant.is_int))
            if abs(value - constant.value) >= MIN_RELATIVE_CHANGE * abs(constant.value):
                chosen[name] = value
        return chosen

    def _proposal(self, context: Context, constants: Mapping[str, Constant], chosen: Mapping[str, float]) -> Proposal:
        edits, said = [], []
        for path, text in sorted(context.files.items()):
            new = {name.partition(":")[2]: value for name, value in chosen.items() if name.startswith(f"{path}:")}
            if diff := unified_diff(path, text, replace_constants(text, new)):
                edits.append(diff)
        for name, value in chosen.items():
            old = constants[name]
            before, after = (format_number(v, old.is_int) for v in (old.value, value))
            said.append(f"{old.name} {before} -> {after}")
        # The whole setting is noted, so that a later study knows every parameter of this trial.
        setting = {name: constant.value for name, constant in constants.items()} | dict(chosen)
        return Proposal(
            hypothesis=", ".join(said),
            edits=("".join(edits),),
            proposer=self.name,
            technique="tune",
            detail={"constants": dict(chosen), "setting": setting},
        )


def _study(context: Context, constants: Mapping[str, Constant], seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
        study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in context.history:
        setting = trial.detail.get("setting")
        gain = _told(trial)
        if trial.proposer != TunerProposer.name or not isinstance(setting, dict) or gain is None:
            continue
        known = {
            name: float(setting[name])
            for name, constant in constants.items()
            if name in setting and constant.low <= float(setting[name]) <= constant.high
        }
        values = {name: round(v) if constants[name].is_int else v for name, v in known.items()}
        study.add_trial(
            optuna.trial.create_trial(
                params=values,
                value=gain,
                distributions={name: _distribution(constants[name]) for name in values},
            )
        )
    return study


def _told(trial: TrialSummary) -> float | None:
    """What the study learns of a trial; nothing of one that was never run."""
    if trial.outcome is Outcome.OK:
        return trial.gain_bpb
    return None if trial.outcome in (Outcome.REJECTED, Outcome.INFRASTRUCTURE) else FAILED_GAIN_BPB


def _distribution(constant: Constant) -> Distribution:
    if constant.is_int:
        return optuna.distributions.IntDistribution(int(constant.low), int(constant.high), log=constant.log)
    return optuna.distributions.FloatDistribution(constant.low, constant.high, log=constant.log)


def _key(detail: Mapping[str, object]) -> str:
    constants = detail.get("constants")
    return repr(sorted(constants.items())) if isinstance(constants, dict) else ""


def _seed(context: Context, attempt: int) -> int:
    digest = hashlib.sha256(f"{context.run_seed}:{context.number}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
