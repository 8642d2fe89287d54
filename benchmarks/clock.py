"""How well a training budget repeats: the same baseline, again and again, on each clock.

    python -m benchmarks.clock --out clock.jsonl [--replicates 10] [--every 360] [--report]

Each replicate trains and scores the baseline of `sprint` once on the reference clock, once on CPU-seconds and
once for a fixed number of steps, one after the other on one core; every second replicate runs beside a busy
loop on another core. Appends a line a training to --out; --report only reads that file.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agentgolf.course import Course, load_course, repo_files
from agentgolf.data import load_documents, write_training_data
from agentgolf.domain import Clock, Slot, Split
from agentgolf.ledger.blobs import Blobs
from agentgolf.loop.bench import Bench
from agentgolf.loop.home import find_course
from agentgolf.loop.session import hidden_paths
from agentgolf.loop.specs import Spec
from agentgolf.sandbox.clock import SpeedMeter
from agentgolf.sandbox.process import ProcessSandbox
from agentgolf.sandbox.slots import usable_cores

STEPS = 1500
KINDS = ("reference", "cpu", "steps")


def variant(course: Course, kind: str) -> Course:
    """The course on another clock; for `steps` with room enough for all of them."""
    if kind == "steps":
        limits = course.limits.model_copy(update={"clock": Clock.CPU, "train_seconds": 600.0})
        spec = course.spec.model_copy(update={"env": {**course.spec.env, "GOLF_STEPS": str(STEPS)}})
        return dataclasses.replace(course, limits=limits, spec=spec)
    return dataclasses.replace(course, limits=course.limits.model_copy(update={"clock": Clock(kind)}))


def spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        sum(range(10_000))


@contextlib.contextmanager
def neighbour(core: int | None) -> Iterator[None]:
    if core is None:
        yield
        return
    process = multiprocessing.Process(target=spin, args=(core,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure(out: Path, first: int, replicates: int, every_seconds: float) -> None:
    course = load_course(find_course("practice"))
    documents = load_documents(course)
    files = {name: (course.repo / name).read_bytes() for name in repo_files(course.repo)}
    *rest, core = usable_cores()
    meter = SpeedMeter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            data = write_training_data(documents, folder / "data")
            for i in range(first, first + replicates):
                started = time.monotonic()
                busy = i % 2 == 1
                for kind in KINDS:
                    bench = Bench(
                        run="clock",
                        course=variant(course, kind),
                        documents=documents,
                        sandbox=ProcessSandbox(meter),
                        blobs=Blobs(folder / "blobs"),
                        data=data,
                        work=folder / "work",
                        hidden=hidden_paths(course),
                    )
                    spec = Spec(replicate_id=i, trial=0, seed=100 + i, split=Split.A, files=files, label=kind)
                    slot = Slot(cores=(core,))
                    with neighbour(rest[0] if busy and rest else None):
                        trained = bench.train(spec, slot, lambda line: None)
                    if trained.artifact is None:
                        raise SystemExit(f"{kind}: {trained.error}")
                    scored = bench.score(
                        spec, slot, trained.artifact, trained.execution.clock_seconds, trained.execution.log
                    )
                    if scored.score is None:
                        raise SystemExit(f"{kind}: {scored.error}")
                    steps = int(trained.execution.log.rsplit("step:", 1)[1].split()[0])
                    row = {
                        "kind": kind,
                        "seed": 100 + i,
                        "busy": busy,
                        "steps": steps,
                        "bpb": scored.score.val_bpb,
                        "cpu": trained.execution.cpu_seconds,
                        "clock": trained.execution.clock_seconds,
                        "wall": trained.execution.wall_seconds,
                    }
                    with out.open("a") as lines:
                        lines.write(json.dumps(row) + "\n")
                time.sleep(max(0.0, every_seconds - (time.monotonic() - started)))
    finally:
        meter.close()


def report(out: Path) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    print("clock        n   val_bpb mean  sd      steps mean  sd    CPU-seconds (min to max)")
    spread = {}
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        if len(mine) < 2:
            continue
        bpb, steps, cpu = ([float(row[key]) for row in mine] for key in ("bpb", "steps", "cpu"))
        spread[kind] = statistics.stdev(bpb)
        print(
            f"{kind:<10} {len(mine):>3}   {statistics.mean(bpb):.4f}        {spread[kind]:.4f}  "
            f"{statistics.mean(steps):>8.0f}  {statistics.stdev(steps):>5.0f}    {min(cpu):.1f} to {max(cpu):.1f}"
        )
    for kind in KINDS[:2]:
        if kind in spread and "steps" in spread:
            print(f"{kind} / fixed steps, standard deviation of val_bpb: {spread[kind] / spread['steps']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--every", type=float, default=360.0)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        measure(options.out, options.first, options.replicates, options.every)
    report(options.out)


if __name__ == "__main__":
    main()
