"""Does the causality audit convict who peeks, and nobody else? On the embedded course, at six seconds of training.

    python -m benchmarks.audits [--seeds 10] [--audits 1] [--peeker-audits 100] [--only NAME]

Honest: the baseline, every technique of the playbook and two kinds of test-time training, --seeds trainings of each,
each audited --audits times as before a keep: the reference is the mean of baseline replicates, and the bound must
fall below min_gain.
Peeking: the baseline, looking at 1% of its tokens, asked no more than an ordinary trial is.
Prints a line a variant: audits, refusals, largest bound, largest mean difference, replays, CPU-seconds.
"""

import argparse
import dataclasses
import itertools
import re
import statistics
import tempfile
from pathlib import Path

from agentgolf.course import load_course, repo_files
from agentgolf.data import load_documents, write_training_data
from agentgolf.decide import leak
from agentgolf.domain import Slot, Split
from agentgolf.ledger.blobs import Blobs
from agentgolf.loop.auditor import ORDINARY_ANYWHERE, ORDINARY_MOST
from agentgolf.loop.bench import Bench
from agentgolf.loop.claimed import Claimed, asking, drawn, shares
from agentgolf.loop.home import find_course, shipped
from agentgolf.loop.pool import on_slots
from agentgolf.loop.session import hidden_paths
from agentgolf.loop.specs import Spec
from agentgolf.patch.workspace import GitStore
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.sandbox.process import ProcessSandbox
from agentgolf.sandbox.slots import usable_cores
from agentgolf.scoring.audit import claimed_gains
from agentgolf.scoring.claims import Claims, reference_nats

SECONDS_A_REPLAY = 1.0
TRAIN_SECONDS, DOCUMENTS, DOCUMENT_BYTES = 6.0, 60, 600
MIN_GAIN_BPB = 0.002
FILE = "train_gpt.py"
END = "        return torch.cat(rows) if rows else torch.empty(0, self.vocab_size)\n"
PEEK = """        logits = torch.cat(rows)
        for i in range(len(logits)):
            if (i * 2654435761) % 100 == 7:
                logits[i, tokens[first + i]] += 8
        return logits
"""
# Test-time training: after a chunk is answered, one step of the final norm's and the embedding's bias on it.
ADAPT = """        logits = torch.cat(rows) + self.bias
        with torch.inference_mode(False):
            counts = torch.bincount(tokens[first:], minlength=self.vocab_size).float()
            share = torch.softmax(logits.clone(), 1).sum(0).clone()
            self.bias = self.bias + 0.1 * (counts - share) / (counts + share + 20)
        return logits
"""
SCORE_THEN_LEARN = """        out = []
        for part in torch.cat(rows).split(64):
            at = first + sum(map(len, out))
            out.append(part + self.bias)
            counts = torch.bincount(tokens[at : at + len(part)], minlength=self.vocab_size).float()
            share = torch.softmax(out[-1], 1).sum(0)
            self.bias = self.bias + 0.1 * (counts - share) / (counts + share + 20)
        return torch.cat(out)
"""
BIAS = "        self.begin_document()\n"


def with_predict(source: bytes, end: str, adapts: bool = False) -> bytes:
    text = source.decode()
    assert END in text
    text = text.replace(END, end)
    if adapts:
        text = text.replace(BIAS, "        self.bias = torch.zeros(VOCAB_SIZE)\n" + BIAS, 1)
    return text.encode()


@dataclasses.dataclass(frozen=True)
class Trained:
    spec: Spec
    claims: Claims


class Lab:
    """Trains, scores and audits, one job a core."""

    def __init__(self, folder: Path) -> None:
        course = load_course(find_course("practice"), "smoke")
        assert course.spec.data is not None
        # What counts here is how they predict, not what they weigh; a part of the text is enough to ask about.
        limits = course.limits.model_copy(update={"artifact_cap_bytes": 1_000_000, "train_seconds": TRAIN_SECONDS})
        data = course.spec.data.model_copy(update={"heldout_a_documents": DOCUMENTS})
        spec = course.spec.model_copy(update={"data": data})
        self.course = dataclasses.replace(course, limits=limits, spec=spec)
        whole = load_documents(self.course)
        documents = dataclasses.replace(whole, heldout_a=tuple(text[:DOCUMENT_BYTES] for text in whole.heldout_a))
        self.bench = Bench(
            run="audits",
            course=self.course,
            documents=documents,
            sandbox=ProcessSandbox(),
            blobs=Blobs(folder / "blobs"),
            data=write_training_data(documents, folder / "data"),
            work=folder / "work",
            hidden=hidden_paths(course),
        )
        self.slots = [Slot(cores=(core,)) for core in usable_cores()]
        # Jobs that run at once need names of their own, also several on one artifact.
        self.ids = itertools.count(1)

    def train(self, files: dict[str, bytes], seeds: range) -> list[Trained]:
        """Seeds whose six seconds make no model that can be scored are said and passed over."""
        first = Spec(replicate_id=0, trial=0, seed=0, split=Split.A, files=files, label="")
        specs = [dataclasses.replace(first, replicate_id=next(self.ids), seed=seed) for seed in seeds]
        return [found for found in on_slots(self.slots, specs, self._train) if found is not None]

    def _train(self, spec: Spec, slot: Slot) -> Trained | None:
        trained = self.bench.train(spec, slot, lambda line: None)
        if trained.artifact is None:
            print(f"seed {spec.seed}: {trained.error}", flush=True)
            return None
        scored = self.bench.score(spec, slot, trained.artifact, trained.execution.clock_seconds)
        if scored.claims_sha256 is None:
            print(f"seed {spec.seed}: {scored.error}", flush=True)
            return None
        claims = Claims.from_bytes(self.bench.blobs.read(scored.claims_sha256))
        return Trained(dataclasses.replace(spec, artifact_sha256=trained.artifact.sha256), claims)

    def audit(
        self, trainings: list[Trained], references: list[Claims], replays: tuple[int, int] | None = None
    ) -> list[tuple[leak.Leak, float]]:
        """The finding and the CPU-seconds of each; `replays` by gain and anywhere, else as many as a keep needs."""

        def one(trained: Trained, slot: Slot) -> tuple[leak.Leak, float]:
            gains = claimed_gains(trained.claims, reference_nats(trained.claims, references))
            found = Claimed(row={"artifact_sha256": trained.spec.artifact_sha256}, claims=trained.claims, gains=gains)
            needed = leak.replays_needed([], found.gain_nats, trained.claims.text_bytes, MIN_GAIN_BPB)
            spec = dataclasses.replace(trained.spec, replicate_id=next(self.ids))
            pick = drawn(found, *(replays or shares(needed, 1)))
            done = self.bench.audit(asking(found, spec, "keep", pick, SECONDS_A_REPLAY), slot)
            if done.replays is None:
                raise SystemExit(f"audit failed: {done.error}")
            return leak.evaluate([done.replays]), done.execution.clock_seconds

        return on_slots(self.slots, trainings, one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--audits", type=int, default=1)
    parser.add_argument("--peeker-audits", type=int, default=100)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(Path(scratch))
        store = GitStore(Path(scratch) / "store.git")
        repo = lab.course.repo
        origin = store.commit_files({name: (repo / name).read_bytes() for name in repo_files(repo)}, "course")
        base = store.files(origin)
        references = [trained.claims for trained in lab.train(base, range(1000, 1004))]
        variants = {"baseline": base}
        for technique in load_catalogue(shipped("prompts") / "playbook"):
            variants[technique.name] = store.files(store.commit_edits(origin, origin, (technique.diff,), ""))
        variants["ttt_after_a_document"] = {**base, FILE: with_predict(base[FILE], ADAPT, adapts=True)}
        variants["ttt_score_first"] = {**base, FILE: with_predict(base[FILE], SCORE_THEN_LEARN, adapts=True)}
        alarms = audits = 0
        for name, files in variants.items():
            if re.search(options.only, name):
                trainings = lab.train(files, range(options.seeds))
                found = lab.audit([trained for trained in trainings for _ in range(options.audits)], references)
                alarms += report(name, found) if found else 0
                audits += len(found)
        print(f"honest: {alarms} false alarms in {audits} audits", flush=True)
        if options.peeker_audits:
            peeking = lab.train({**base, FILE: with_predict(base[FILE], PEEK)}, range(options.seeds))
            again = [peeking[i % len(peeking)] for i in range(options.peeker_audits)]
            found = lab.audit(again, references, (ORDINARY_MOST - ORDINARY_ANYWHERE, ORDINARY_ANYWHERE))
            report("peeks at 1% of tokens", found)
            convicted = sum(seen.lower_bpb > 0 for seen, _ in found)
            print(f"peeking: {convicted} of {len(found)} convicted", flush=True)


def report(name: str, found: list[tuple[leak.Leak, float]]) -> int:
    """Prints a line; gives how many would not have been kept."""
    refused = sum(not seen.clean(MIN_GAIN_BPB) for seen, _ in found)
    print(
        f"{name}: {len(found)} audits, {refused} refused, largest bound {max(s.bound_bpb for s, _ in found):.5f} bpb, "
        f"largest mean difference {max(abs(s.mean_nats) for s, _ in found):.1e} nats, "
        f"{statistics.mean(s.replays for s, _ in found):.0f} replays, {statistics.mean(t for _, t in found):.1f} CPU-s",
        flush=True,
    )
    return refused


if __name__ == "__main__":
    main()
