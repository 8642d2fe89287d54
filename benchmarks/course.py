"""The embedded course's constants: score by budget, speed, sizes, and what each technique gives alone.

    python -m benchmarks.course [--budgets 30,60,120] [--seeds 2] [--techniques] [--track sprint]

Trainings run in the process sandbox, one a core. Everything is scored as in a run, on held-out A.
"""

import argparse
import dataclasses
import queue
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentgolf.course import Course, load_course, repo_files
from agentgolf.data import load_documents, write_training_data
from agentgolf.domain import Slot, Split
from agentgolf.ledger.blobs import Blobs
from agentgolf.loop.bench import Bench
from agentgolf.loop.home import find_course, shipped
from agentgolf.loop.session import hidden_paths
from agentgolf.loop.specs import Spec
from agentgolf.patch.workspace import GitStore
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.sandbox.clock import SpeedMeter
from agentgolf.sandbox.process import ProcessSandbox
from agentgolf.sandbox.slots import usable_cores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one training. `score` is None when it did not end well; `said` then says why."""

    bpb: float | None
    steps: int
    counted_bytes: int
    eval_seconds: float
    peak_bytes: int
    bytes_per_token: float
    said: str


class Lab:
    """Measures candidates, as many at once as there are cores."""

    def __init__(self, course: Course, folder: Path, meter: SpeedMeter) -> None:
        self.course, self.folder, self.meter = course, folder, meter
        self.documents = load_documents(course)
        self.data = write_training_data(self.documents, folder / "data")
        self.slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for core in usable_cores():
            self.slots.put(Slot(cores=(core,)))
        self.pool = ThreadPoolExecutor(len(usable_cores()))
        self.count = 0

    def measure(self, jobs: list[tuple[dict[str, bytes], float, int]]) -> list[Measured]:
        """(files, budget seconds, seed) each."""
        numbered = [(self.count + i, *job) for i, job in enumerate(jobs)]
        self.count += len(jobs)
        return list(self.pool.map(lambda job: self._one(*job), numbered))

    def _one(self, number: int, files: dict[str, bytes], budget: float, seed: int) -> Measured:
        slot = self.slots.get()
        try:
            limits = self.course.limits.model_copy(update={"train_seconds": budget})
            bench = Bench(
                run="course",
                course=dataclasses.replace(self.course, limits=limits),
                documents=self.documents,
                sandbox=ProcessSandbox(self.meter),
                blobs=Blobs(self.folder / "blobs"),
                data=self.data,
                work=self.folder / "work",
                hidden=hidden_paths(self.course),
            )
            spec = Spec(replicate_id=number, trial=0, seed=seed, split=Split.A, files=files, label="")
            trained = bench.train(spec, slot, lambda line: None)
            log, peak = trained.execution.log, trained.execution.peak_memory_bytes
            steps = int(log.rsplit("step:", 1)[1].split()[0]) if "step:" in log else 0
            if trained.artifact is None:
                return Measured(
                    bpb=None,
                    steps=steps,
                    counted_bytes=0,
                    eval_seconds=0,
                    peak_bytes=peak,
                    bytes_per_token=0,
                    said=str(trained.error),
                )
            scored = bench.score(
                spec, slot, trained.artifact, trained.execution.clock_seconds, trained.execution.log
            ).score
            assert scored is not None
            return Measured(
                bpb=scored.val_bpb,
                steps=steps,
                counted_bytes=trained.artifact.counted_bytes,
                peak_bytes=peak,
                eval_seconds=scored.eval_seconds,
                bytes_per_token=scored.text_bytes / scored.tokens,
                said="",
            )
        finally:
            self.slots.put(slot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", default="30,60,120")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--track", default="sprint")
    parser.add_argument("--techniques", action="store_true")
    options = parser.parse_args()
    course = load_course(find_course("practice"), options.track)
    meter = SpeedMeter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            store = GitStore(Path(scratch) / "store.git")
            origin = store.commit_files(
                {name: (course.repo / name).read_bytes() for name in repo_files(course.repo)}, "course"
            )
            base = origin
            if course.limits.baseline:
                patch = (course.folder / course.limits.baseline).read_text()
                base = store.commit_edits(origin, origin, (patch,), "baseline")
            lab = Lab(course, Path(scratch), meter)
            show_budgets(lab, store.files(base), [float(b) for b in options.budgets.split(",") if b], options.seeds)
            if options.techniques:
                show_techniques(lab, store, origin, base, course.limits.train_seconds, options.seeds)
    finally:
        meter.close()


def show_budgets(lab: Lab, files: dict[str, bytes], budgets: list[float], seeds: int) -> None:
    for budget in budgets:
        done = lab.measure([(files, budget, seed) for seed in range(seeds)])
        scores = [m.bpb for m in done if m.bpb is not None]
        one = done[0]
        print(
            f"{lab.course.track} {budget:g} s: val_bpb {statistics.mean(scores):.4f} (n={len(scores)}), "
            f"{one.steps} steps, {one.counted_bytes:,} bytes, {one.bytes_per_token:.2f} bytes a token, "
            f"evaluation {one.eval_seconds:.1f} s, peak {one.peak_bytes / 1e6:.0f} MB",
            flush=True,
        )


def show_techniques(lab: Lab, store: GitStore, origin: str, base: str, budget: float, seeds: int) -> None:
    baseline = lab.measure([(store.files(base), budget, seed) for seed in range(seeds)])
    mean = statistics.mean(m.bpb for m in baseline if m.bpb is not None)
    for technique in load_catalogue(shipped("prompts") / "playbook"):
        files = store.files(store.commit_edits(base, origin, (technique.diff,), technique.name))
        done = lab.measure([(files, budget, seed) for seed in range(seeds)])
        scores = [m.bpb for m in done if m.bpb is not None]
        said = f"gain {mean - statistics.mean(scores):+.4f}" if scores else done[0].said
        print(f"{technique.name}: {said}, {done[0].counted_bytes:,} bytes, {done[0].steps} steps", flush=True)


if __name__ == "__main__":
    main()
