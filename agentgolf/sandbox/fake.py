"""A sandbox that trains nothing: deterministic, instant, for the tests of everything around it.

"Training" reads `QUALITY = x` (bits per byte to save) from the candidate's file and writes an artifact
that says so; "scoring" runs the real harness in a thread with a byte-level predictor that keeps the
promise. A line `# fake: crash` (or timeout, memory, huge, lossy, nan, shape, infrastructure) in the file
makes the candidate, or the engine, fail that way.
"""

import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np

from agentgolf.domain import Execution, Outcome, Role
from agentgolf.errors import InfrastructureError
from agentgolf.sandbox.base import ARTIFACT_FILE, CHANNEL_DIR, CODE_DIR, OUT_FILE, TOOL_DIR, Job

BASE_BPB = 4.0
SEED_NOISE_BPB = 0.004
_FAILURES = {
    "crash": (Outcome.CRASHED, 1),
    "timeout": (Outcome.TIMED_OUT, 137),
    "memory": (Outcome.OUT_OF_MEMORY, 137),
}


class FakeSandbox:
    """`fail_next` makes that many starts raise `InfrastructureError`, as a dying engine would."""

    name = "fake"
    isolation = "the fake sandbox runs nothing"

    def __init__(self, fail_next: int = 0) -> None:
        self.fail_next = fail_next
        self.started: list[str] = []

    def prepare(self) -> None:
        pass

    def start(self, job: Job) -> "FakeRunning":
        if self.fail_next > 0:
            self.fail_next -= 1
            raise InfrastructureError("the fake engine is down")
        self.started.append(job.name)
        return FakeRunning(job)

    def reap(self, labels: Mapping[str, str], dry_run: bool = False) -> list[str]:
        return []


class FakeRunning:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._paths = {mount.target: mount.source for mount in job.mounts}
        self._thread: threading.Thread | None = None
        if job.role is not Role.TRAIN:
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def wait(self, on_line: Callable[[str], None] | None = None) -> Execution:
        outcome, exit_code, log = Outcome.OK, 0, ""
        if self._job.role is Role.TRAIN:
            outcome, exit_code, log = self._train()
        elif self._thread:
            self._thread.join(timeout=30)
        if on_line:
            for line in log.splitlines():
                on_line(line)
        return Execution(
            role=self._job.role,
            outcome=outcome,
            exit_code=exit_code,
            wall_seconds=0.0,
            cpu_seconds=0.0,
            clock_seconds=0.0,
            peak_memory_bytes=0,
            log=log,
            message="" if exit_code == 0 else f"fake {outcome}",
        )

    def kill(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _train(self) -> tuple[Outcome, int, str]:
        source = "".join(p.read_text() for p in sorted(self._paths[CODE_DIR].glob("*.py")))
        quality = re.search(r"^QUALITY = ([0-9.]+)", source, re.MULTILINE)
        told = re.findall(r"# fake: (\w+)", source)
        for word in told:
            if word in _FAILURES:
                outcome, code = _FAILURES[word]
                return outcome, code, f"fake {word}\n"
        seed = int(self._job.env["GOLF_SEED"])
        digest = hashlib.sha256(f"{source}{seed}".encode()).digest()
        noise = (int.from_bytes(digest[:4], "big") / 2**32 - 0.5) * 2 * SEED_NOISE_BPB
        bpb = BASE_BPB - float(quality[1] if quality else 0) + noise
        size = 10_000_000 if "huge" in told else 100
        artifact = json.dumps({"bpb": bpb, "told": told, "pad": "x" * size})
        self._paths[OUT_FILE].write_text(artifact)
        return Outcome.OK, 0, f"step:1 share:1.000 train_loss:{bpb:.4f}\n"

    def _serve(self) -> None:
        promise = json.loads(self._paths[ARTIFACT_FILE].read_text())
        harness = _load_module(self._paths[TOOL_DIR + "/predictor.py"])
        harness.serve(self._paths[CHANNEL_DIR] / harness.SOCKET, FakePredictor(promise), lambda ids: ids)


def _load_module(path: Path) -> ModuleType:
    """The harness that the job mounts, as a module: this stage imports no other."""
    spec = importlib.util.spec_from_file_location("harness", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakePredictor:
    """Bytes as tokens; every byte costs exactly the promised bits."""

    vocab_size = 256

    def __init__(self, promise: Mapping[str, Any]) -> None:
        self.told = list(promise["told"])
        likely = 2.0 ** -float(promise["bpb"])
        self._logits = np.full(256, np.log((1 - likely) / 255), np.float32)
        self._likely = np.float32(np.log(likely))

    def encode(self, text: bytes) -> list[int]:
        return list(text[:-1] if "lossy" in self.told else text)

    def decode(self, tokens: list[int]) -> bytes:
        return bytes(tokens)

    def begin_document(self) -> None:
        pass

    def predict(self, tokens: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        if "shape" in self.told:
            return np.zeros((len(tokens), 7), np.float32)
        logits = np.tile(self._logits, (len(tokens), 1))
        # It peeks, as only a fake may: the promised bits come out whatever the text is.
        logits[np.arange(len(tokens)), tokens] = self._likely
        if "nan" in self.told and len(tokens):
            logits[0, 0] = np.nan
        return logits
