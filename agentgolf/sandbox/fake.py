"""A sandbox that trains nothing: deterministic, instant, for the tests of everything around it.

"Training" reads `QUALITY = x` (bits per byte to save) from the candidate's file and writes an artifact
that says so; "scoring" runs the real harness in a thread with a byte-level predictor that keeps the
promise: it knows the course's text by heart and only has to be told which document it is. A line
`# fake: crash` (or timeout, memory, huge, lossy, nan, shape, peek) in the file makes the candidate fail that
way; `peek` keeps the promise by looking at the token in question.
"""

import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
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
    """`text`: the documents of the course. `fail_next` starts raise `InfrastructureError`, as a dying engine would."""

    name = "fake"
    image_id = ""
    isolates = True
    isolation = "the fake sandbox runs nothing"

    def __init__(self, text: Sequence[bytes] = (), fail_next: int = 0) -> None:
        self.text = tuple(text)
        self.fail_next = fail_next
        self.started: list[str] = []

    def prepare(self) -> None:
        pass

    def start(self, job: Job) -> "FakeRunning":
        if self.fail_next > 0:
            self.fail_next -= 1
            raise InfrastructureError("the fake engine is down")
        self.started.append(job.name)
        return FakeRunning(job, self.text)

    def reap(self, labels: Mapping[str, str], dry_run: bool = False) -> list[str]:
        return []


class FakeRunning:
    def __init__(self, job: Job, text: Sequence[bytes]) -> None:
        self._job, self._text = job, text
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
        harness.serve(self._paths[CHANNEL_DIR] / harness.SOCKET, FakePredictor(promise, self._text), lambda ids: ids)


def _load_module(path: Path) -> ModuleType:
    """The harness that the job mounts, as a module: this stage imports no other."""
    spec = importlib.util.spec_from_file_location("harness", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakePredictor:
    """Bytes as tokens, after one that names the document; a document costs exactly the promised bits."""

    vocab_size = 512

    def __init__(self, promise: Mapping[str, Any], text: Sequence[bytes]) -> None:
        self.told = list(promise["told"])
        self._bpb, self._text = float(promise["bpb"]), text
        self.begin_document()

    def encode(self, text: bytes) -> list[int]:
        name = 256 + self._text.index(text) if text in self._text else 511
        return [name, *(text[:-1] if "lossy" in self.told else text)]

    def decode(self, tokens: list[int]) -> bytes:
        return bytes(token for token in tokens if token < 256)

    def begin_document(self) -> None:
        self._seen: list[int] = []

    def predict(self, tokens: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        if "shape" in self.told:
            return np.zeros((len(tokens), 7), np.float32)
        before = len(self._seen)
        self._seen += [int(token) for token in tokens]
        logits = np.zeros((len(tokens), self.vocab_size), np.float32)
        known = self._text[self._seen[0] - 256] if 0 <= self._seen[0] - 256 < len(self._text) else None
        for row, place in enumerate(range(before, len(self._seen))):
            if place == 0:
                continue  # which document it is: nine bits, since all 512 are as likely
            likely = self._seen[place] if "peek" in self.told else known[place - 1] if known else 0
            bits = self._bpb - (9 / len(known) if known and "peek" not in self.told else 0)
            share = 2.0**-bits
            logits[row] = np.log((1 - share) / (self.vocab_size - 1))
            logits[row, likely] = np.log(share)
        if "nan" in self.told and len(tokens):
            logits[0, 0] = np.nan
        return logits
