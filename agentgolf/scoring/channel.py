"""The scorer's end of the wire to a predictor in a sandbox. Trusts nothing that comes back."""

import contextlib
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from agentgolf.domain import Outcome
from agentgolf.errors import CandidateError
from agentgolf.scoring.predictor import HEAD, SOCKET, send

MAX_VOCAB = 1 << 20
MAX_TOKENS_PER_BYTE = 4
MAX_TEXT_BYTES = 1 << 28
POLL_SECONDS = 0.05

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]


class Channel:
    """A listening socket in a folder of its own, then one connection.

    `gone` tells whether the sandbox at the other end has ended; `deadline` (monotonic) bounds every wait.
    Every method raises `CandidateError` when the predictor fails, hangs up, stalls or breaks the protocol.
    """

    def __init__(self) -> None:
        # Short on purpose: the path of a Unix socket may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ag-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.folder / SOCKET))
        (self.folder / SOCKET).chmod(0o666)
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._gone: Callable[[], bool] = lambda: False
        self._deadline = float("inf")
        self.vocab_size = 0

    def accept(self, gone: Callable[[], bool], deadline: float) -> int | None:
        """Wait for the predictor to load; gives its declared number of parameters, if it has one."""
        self._gone, self._deadline = gone, deadline
        self._wait(self._listener)
        self._connection, _ = self._listener.accept()
        # Nobody else can connect from now on.
        (self.folder / SOCKET).unlink()
        size, body = self._ask(b"VOCB", b"", b"DONE", 64)
        if not 1 <= size <= MAX_VOCAB:
            raise CandidateError(
                Outcome.INVALID, f"the predictor's vocab_size is {size}; it must be 1 to {MAX_VOCAB:,}"
            )
        self.vocab_size = size
        declared = bytes(body).decode("ascii", "replace")
        return int(declared) if declared.isdigit() else None

    def vocab_size_must_be(self, size: int) -> None:
        """Encoder and predictor are separate processes: they must agree."""
        if self.vocab_size != size:
            raise CandidateError(
                Outcome.INVALID, f"vocab_size is {size} in one process and {self.vocab_size} in another"
            )

    def encode(self, text: bytes) -> Ids:
        """Token ids, (n,), each below vocab_size."""
        limit = 4 * (MAX_TOKENS_PER_BYTE * len(text) + 16)
        _, body = self._ask(b"ENCD", text, b"TOKS", limit)
        ids = np.frombuffer(body, np.int32) if len(body) % 4 == 0 else np.array([-1], np.int32)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            raise CandidateError(Outcome.INVALID, f"encode gave a token outside 0..{self.vocab_size - 1}")
        return ids

    def begin_document(self) -> None:
        self._ask(b"BEGN", b"", b"DONE", 0)

    def predict(self, ids: Ids) -> Logits:
        """Logits (n, vocab_size) of the next n tokens, all finite."""
        return self._logits(b"PRED", ids, len(ids))

    def peek(self, ids: Ids) -> Logits:
        """Logits (1, vocab_size) of the last of the next n tokens; the predictor then knows of none of them."""
        return self._logits(b"PEEK", ids, 1)

    def _logits(self, question: bytes, ids: Ids, rows: int) -> Logits:
        size = 4 * rows * self.vocab_size
        _, body = self._ask(question, ids.tobytes(), b"LOGI", size)
        if len(body) != size:
            raise CandidateError(
                Outcome.INVALID,
                f"predict gave {len(body):,} bytes of logits for {rows} tokens, not {size:,}",
            )
        logits = np.frombuffer(body, np.float32).reshape(rows, self.vocab_size)
        if not np.isfinite(logits).all():
            raise CandidateError(Outcome.INVALID, "predict gave a logit that is not finite")
        return logits

    def decode(self, ids: Ids, length: int) -> bytes:
        """The text of the ids; an answer longer than `length` + 1024 bytes is refused."""
        _, body = self._ask(b"DECD", ids.tobytes(), b"TEXT", length + 1024)
        return bytes(body)

    def _ask(self, what: bytes, body: bytes, expected: bytes, limit: int) -> tuple[int, bytearray]:
        assert self._connection is not None
        try:
            self._connection.settimeout(max(0.1, min(60.0, self._deadline - time.monotonic())))
            send(self._connection, what, 0, body)
            got, rows, size = HEAD.unpack(self._receive(HEAD.size))
            if got == b"FAIL" and size <= 4096:
                said = self._receive(size).decode("utf-8", "replace")
                outcome = Outcome.INVALID if rows else Outcome.CRASHED
                raise CandidateError(outcome, said if rows else f"the predictor raised {said}")
            if got != expected or size > limit:
                raise CandidateError(Outcome.INVALID, f"the predictor answered {what.decode()} with something else")
            return rows, self._receive(size)
        except (TimeoutError, ConnectionError, BrokenPipeError) as error:
            raise self._lost() from error

    def _receive(self, count: int) -> bytearray:
        assert self._connection is not None
        data = bytearray(count)
        view, at = memoryview(data), 0
        while at < count:
            self._wait(self._connection)
            got = self._connection.recv_into(view[at:], min(count - at, 1 << 20))
            if not got:
                raise self._lost()
            at += got
        return data

    def _wait(self, sock: socket.socket) -> None:
        while not select.select([sock], [], [], POLL_SECONDS)[0]:
            if time.monotonic() > self._deadline:
                raise CandidateError(Outcome.TIMED_OUT, "the predictor did not answer within the evaluation limit")
            if self._gone() and not select.select([sock], [], [], 0)[0]:
                raise self._lost()

    def _lost(self) -> CandidateError:
        return CandidateError(Outcome.CRASHED, "the predictor ended before it had answered")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def hang_up(self) -> None:
        """Close the connection: the predictor's process then ends by itself."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
