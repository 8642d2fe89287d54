"""How often the decision keeps noise, and how often it sees a gain: simulated, with a measured noise.

    python -m benchmarks.decision [--trials 20000] [--noise 0.005]

Each simulated trial has an incumbent with a baseline's replicates and plays the course's looks, each with
paired replicates of the incumbent, exactly as the loop does. "keep-if-lower" is the rule of peers: one
replicate each, the lower score wins.
"""

import argparse

import numpy as np

from agentgolf.decide.accept import Rules, judge, pooled_noise
from agentgolf.domain import Verdict

RULES = Rules(min_gain_bpb=0.002, level=0.01, looks=(1, 3, 5))
BASELINE_REPLICATES = 4


def play(gain: float, noise: float, rng: np.random.Generator) -> tuple[Verdict, int]:
    """Verdict and number of the candidate's replicates for one trial with this true gain."""
    incumbent = list(rng.normal(1.5, noise, BASELINE_REPLICATES))
    candidate: list[float] = []
    wanted = RULES.looks[0]
    while True:
        new = wanted - len(candidate)
        candidate += list(rng.normal(1.5 - gain, noise, new))
        incumbent += list(rng.normal(1.5, noise, new))
        said = judge(incumbent, candidate, RULES, pooled_noise([incumbent, candidate]))
        if said.verdict is not None:
            return said.verdict, len(candidate)
        wanted = said.wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--noise", type=float, default=0.005)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"noise {options.noise}, {options.trials} trials a row")
    print("true gain   kept   undecided   replicates   keep-if-lower")
    for gain in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
        played = [play(gain, options.noise, rng) for _ in range(options.trials)]
        kept = np.mean([verdict is Verdict.KEEP for verdict, _ in played])
        open_ = np.mean([verdict is Verdict.UNDECIDED for verdict, _ in played])
        count = np.mean([n for _, n in played])
        lower = np.mean(rng.normal(-gain, options.noise, options.trials) < rng.normal(0, options.noise, options.trials))
        print(f"{gain:9.3f} {kept:6.2%} {open_:11.2%} {count:12.2f} {lower:15.2%}")


if __name__ == "__main__":
    main()
