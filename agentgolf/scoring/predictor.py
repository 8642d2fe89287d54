"""Runs inside the sandbox: serves one candidate's predictor over a socket.

Run as a script with the module's name, the artifact and the socket as arguments; imports nothing of ours,
so that one mounted file is enough. A message either way is a head (`<4sII`: what, number of rows, bytes
of body) and a body. Questions and their answers:

    ENCD  text                    TOKS  int32 ids
    BEGN  nothing                 DONE
    PRED  int32 ids, (n,)         LOGI  float32 logits, (n, vocab_size)
    PEEK  int32 ids, (n,)         LOGI  float32 logits of the last alone, (1, vocab_size)
    DECD  int32 ids               TEXT  bytes
    VOCB  nothing                 DONE  rows = vocab_size, body = declared number of parameters, if any
    any   the predictor raised    FAIL  the error's text

PEEK is PRED by a copy: the predictor itself does not learn that it was asked. The copy is a fork, or
`copy.deepcopy` once a GPU is in use.
"""

import contextlib
import copy
import functools
import importlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEAD = struct.Struct("<4sII")
SOCKET = "scorer.sock"


def receive_exactly(connection: socket.socket, count: int) -> bytearray:
    """Raises `EOFError` when the other side closes before that."""
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        got = connection.recv_into(view[at:], min(count - at, 1 << 20))
        if not got:
            raise EOFError("the other side closed the connection")
        at += got
    return data


def send(connection: socket.socket, what: bytes, rows: int = 0, body: Any = b"") -> None:
    view = memoryview(body).cast("B") if len(body) else b""
    connection.sendall(HEAD.pack(what, rows, len(view)))
    if view:
        connection.sendall(view)


Reply = tuple[bytes, int, Any]


def answer(predictor: Any, as_tensor: Callable[[Any], Any], what: bytes, body: bytearray) -> Reply:
    if what == b"ENCD":
        ids = np.asarray(predictor.encode(bytes(body)), dtype=np.int32).reshape(-1)
        return b"TOKS", len(ids), ids.tobytes()
    if what == b"BEGN":
        predictor.begin_document()
        return b"DONE", 0, b""
    if what == b"PRED":
        ids = np.frombuffer(body, np.int32)
        logits = predictor.predict(as_tensor(ids.astype(np.int64)))
        if hasattr(logits, "detach"):
            logits = logits.detach().float().cpu().numpy()
        logits = np.ascontiguousarray(logits, dtype=np.float32)
        if logits.shape != (len(ids), predictor.vocab_size):
            shape, wanted = tuple(logits.shape), (len(ids), predictor.vocab_size)
            return b"FAIL", 1, f"predict gave logits of shape {shape}, not {wanted}".encode()
        return b"LOGI", len(ids), logits.reshape(-1)
    if what == b"DECD":
        return b"TEXT", 0, bytes(predictor.decode(np.frombuffer(body, np.int32).tolist()))
    if what == b"VOCB":
        count = getattr(predictor, "num_parameters", "")
        return b"DONE", int(predictor.vocab_size), str(count).encode()
    return b"FAIL", 0, f"unknown question {what!r}".encode()


def guarded(reply: Callable[[], Reply]) -> Reply:
    """The reply, or the FAIL that stands for what the candidate raised."""
    try:
        return reply()
    except Exception as error:  # noqa: BLE001  (a candidate may raise anything)
        return b"FAIL", 0, f"{type(error).__name__}: {error}"[:2000].encode()


def last_row(reply: Reply) -> Reply:
    what, rows, body = reply
    return (what, 1, body[len(body) // rows * (rows - 1) :]) if what == b"LOGI" else reply


def peek_in_a_fork(connection: socket.socket, predictor: Any, as_tensor: Callable[[Any], Any], body: bytearray) -> None:
    """A child answers and ends; what it learned and changed is gone with it."""
    child = os.fork()
    if child == 0:
        try:
            send(connection, *last_row(guarded(lambda: answer(predictor, as_tensor, b"PRED", body))))
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def peek_in_a_copy(connection: socket.socket, predictor: Any, as_tensor: Callable[[Any], Any], body: bytearray) -> None:
    send(connection, *last_row(guarded(lambda: answer(copied(predictor), as_tensor, b"PRED", body))))


def copied(predictor: Any) -> Any:
    try:
        return copy.deepcopy(predictor)
    except Exception as error:
        raise TypeError(f"the predictor cannot be copied: {type(error).__name__}: {error}") from error


def serve(
    path: Path, predictor: Any, as_tensor: Callable[[Any], Any], may_fork: Callable[[], bool] = lambda: False
) -> None:
    """Answer until the scorer hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while True:
                what, _, size = HEAD.unpack(receive_exactly(connection, HEAD.size))
                body = receive_exactly(connection, size)
                if what == b"PEEK":
                    peek = peek_in_a_fork if may_fork() else peek_in_a_copy
                    peek(connection, predictor, as_tensor, body)
                else:
                    asked = functools.partial(answer, predictor, as_tensor, what, body)
                    send(connection, *guarded(asked))


def torch_of_one_thread() -> Any:
    """Imported when first needed: an encoder may do without, and start sooner."""
    import torch

    torch.set_num_threads(1)
    return torch


def to_tensor(ids: Any) -> Any:
    return torch_of_one_thread().from_numpy(ids)


def may_fork() -> bool:
    """A fork has no use of the parent's GPU. Imports torch in the parent, or every fork would have to."""
    return not torch_of_one_thread().cuda.is_initialized()


def main() -> None:
    module, artifact, path = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))
    candidate = importlib.import_module(module)
    if "torch" in sys.modules:
        torch_of_one_thread()
    serve(Path(path), candidate.load(Path(artifact)), to_tensor, may_fork)


if __name__ == "__main__":
    main()
