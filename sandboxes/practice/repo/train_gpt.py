"""Train one small language model against the clock, in one file and on one CPU thread.

Reads   $GOLF_DATA_DIR/train.jsonl   one {"text": ...} a line, a document each
Writes  $GOLF_ARTIFACT               tokenizer and quantized weights, one compressed file
Told    $GOLF_BUDGET_SECONDS, $GOLF_CLOCK (cpu, reference or wall), $GOLF_CLOCK_FILE, $GOLF_SEED;
        $GOLF_STEPS, if set, counts progress in steps instead of time

`load(artifact)` gives the predictor that is scored: bits per byte of held-out text it has never seen.
What this file prints is for people; the score is measured elsewhere, from the predictor's logits.
"""
import io
import json
import os
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import zstandard
from torch import Tensor, nn

# -- Hyperparameters. Each stands alone between comments, so that separate changes merge.
# Tokens in the vocabulary: the escape, the bytes of the training text, then merges.
VOCAB_SIZE = 512  # tune no
# Width of the residual stream.
MODEL_DIM = 64  # tune no
# Transformer blocks.
NUM_LAYERS = 2  # tune no
# Attention heads; MODEL_DIM / NUM_HEADS must be even for the rotary embedding.
NUM_HEADS = 2  # tune no
# Hidden width of the MLP, in multiples of MODEL_DIM.
MLP_RATIO = 2  # tune no
# Tokens in one training sequence, and the longest context at evaluation.
SEQ_LEN = 128  # tune no
# Sequences in one step.
BATCH_SIZE = 16
# Base of the rotary embedding's frequencies.
ROPE_BASE = 10000.0
# Learning rate of the matrices inside the blocks (Muon).
MATRIX_LR = 0.03
# Learning rate of the tied embedding (Adam).
EMBED_LR = 0.02
# Learning rate of everything else: gains and gates (Adam).
SCALAR_LR = 0.01
# Momentum of Muon.
MUON_MOMENTUM = 0.95
# Adam's decay of the first moment.
ADAM_BETA1 = 0.8
# Adam's decay of the second moment.
ADAM_BETA2 = 0.95
# Share of the budget over which the learning rate climbs from zero.
WARMUP_SHARE = 0.02
# Share of the budget over which the learning rate falls to zero.
WARMDOWN_SHARE = 0.5
# Seconds of the budget kept back for export.
EXPORT_SECONDS = 1.0  # tune no
# Bits of a quantized weight.
WEIGHT_BITS = 8  # tune no
# Tokens scored by one window at evaluation; a smaller stride gives each token more context.
EVAL_STRIDE = 128  # tune no
# Standard deviation of the embedding at the start.
EMBED_STD = 0.02

ESCAPE = 0  # also stands before the first token of a document


# -- Tokenizer: byte-pair merges inside words. A byte that training never saw is written as the
#    escape and two digits (base 16), each digit the token of that number: lossless, and one slot.
WORD = re.compile(rb" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]+|\s+")


class Tokenizer:
    """Byte-pair encoding. `pieces[i]` is the bytes of token i; `pieces[ESCAPE]` is empty."""

    def __init__(self, alphabet: bytes, merges: list[tuple[int, int]]) -> None:
        self.alphabet, self.merges = alphabet, merges
        self.pieces = [b""] + [bytes([b]) for b in alphabet]
        for left, right in merges:
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self.id_of_byte = {b: i + 1 for i, b in enumerate(alphabet)}
        self.rank = {pair: len(alphabet) + 1 + i for i, pair in enumerate(merges)}
        self.cache: dict[bytes, list[int]] = {}

    @classmethod
    def train(cls, texts: list[bytes], vocab_size: int) -> "Tokenizer":
        """Repeatedly merge the most frequent adjacent pair (Sennrich et al. 2016)."""
        counts = Counter(word for text in texts for word in WORD.findall(text))
        alphabet = bytes(sorted({b for word in counts for b in word}))
        id_of_byte = {b: i + 1 for i, b in enumerate(alphabet)}
        words = [([id_of_byte[b] for b in word], n) for word, n in counts.items()]
        pairs, where = Counter(), {}  # of adjacent tokens: how often, and in which words
        for i, (ids, n) in enumerate(words):
            for pair in zip(ids, ids[1:]):
                pairs[pair] += n
                where.setdefault(pair, set()).add(i)
        merges = []
        for new_id in range(len(alphabet) + 1, vocab_size):
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            merges.append(best)
            for i in where.pop(best):
                ids, n = words[i]
                for pair in zip(ids, ids[1:]):
                    pairs[pair] -= n
                ids = merge_pair(ids, best, new_id)
                words[i] = (ids, n)
                for pair in zip(ids, ids[1:]):
                    pairs[pair] += n
                    where.setdefault(pair, set()).add(i)
            del pairs[best]
        return cls(alphabet, merges)

    def encode_word(self, word: bytes) -> list[int]:
        ids = []
        for b in word:
            ids += [self.id_of_byte[b]] if b in self.id_of_byte else [ESCAPE, b >> 4, b & 15]
        while ESCAPE not in ids and (pairs := [p for p in zip(ids, ids[1:]) if p in self.rank]):
            first = min(pairs, key=self.rank.__getitem__)
            ids = merge_pair(ids, first, self.rank[first])
        return ids

    def encode(self, text: bytes) -> list[int]:
        words = WORD.findall(text)
        self.cache |= {word: self.encode_word(word) for word in set(words) - self.cache.keys()}
        return [i for word in words for i in self.cache[word]]

    def decode(self, tokens: list[int]) -> bytes:
        out, stream = bytearray(), iter(tokens)
        for i in stream:
            out += bytes([next(stream) << 4 | next(stream)]) if i == ESCAPE else self.pieces[i]
        return bytes(out)


def merge_pair(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        out.append(new_id if hit else ids[i])
        i += 1 + hit
    return out


# -- Model: a decoder-only transformer with tied embeddings.
def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def rotary(length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary position embedding, each (length, head_dim / 2)."""
    freq = ROPE_BASE ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angle = torch.outer(torch.arange(length).float(), freq)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Linear(nn.Linear):
    """A linear map without bias: the only kind of matrix inside the blocks."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        return F.linear(x, weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.key = Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.value = Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.out = Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.query_gain = nn.Parameter(torch.ones(NUM_HEADS, 1, 1))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        split = (*x.shape[:2], NUM_HEADS, MODEL_DIM // NUM_HEADS)
        q, k, v = (f(x).view(split).transpose(1, 2) for f in (self.query, self.key, self.value))
        q = rotate(rms_norm(q), cos, sin) * self.query_gain
        k = rotate(rms_norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return self.out(y.transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = Linear(MODEL_DIM, MLP_RATIO * MODEL_DIM, bias=False)
        self.down = Linear(MLP_RATIO * MODEL_DIM, MODEL_DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        x = F.relu(x).square()
        return self.down(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(rms_norm(x), cos, sin)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """Tokens (batch, length) to logits (batch, length, VOCAB_SIZE) of the token after each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, MODEL_DIM)

        self.blocks = nn.ModuleList(Block() for _ in range(NUM_LAYERS))
        self.cos, self.sin = rotary(SEQ_LEN, MODEL_DIM // NUM_HEADS)

        nn.init.normal_(self.embedding.weight, std=EMBED_STD)
        for block in self.blocks:  # each starts as the identity: what it adds to the stream is zero

            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        cos, sin = self.cos[: tokens.size(1)], self.sin[: tokens.size(1)]
        x = self.embedding(tokens)

        x = rms_norm(x)

        for block in self.blocks:
            x = block(x, cos, sin)

        x = rms_norm(x)
        return F.linear(x, self.embedding.weight)


# -- Optimizer: Muon for the matrices of the blocks, Adam for the rest.
def orthogonalize(grads: Tensor) -> Tensor:
    """Push the singular values of each matrix towards 1: five Newton-Schulz steps (Jordan 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = grads.size(-2) > grads.size(-1)
    x = grads.mT if tall else grads
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized. Matrices of one shape are stacked and handled together."""

    def __init__(self, params: list[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            for shape, params in by_shape.items():
                grad = torch.stack([p.grad for p in params])
                buffer = self.state[params[0]].setdefault("momentum", torch.zeros_like(grad))
                buffer.lerp_(grad, 1 - MUON_MOMENTUM)
                update = orthogonalize(grad.lerp(buffer, MUON_MOMENTUM))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5

                for p, u in zip(params, update):
                    p.add_(u, alpha=-scale)


# -- Clock and data.
class Clock:
    """Share of the told budget used so far.

    $GOLF_CLOCK_FILE, when there is one, holds two numbers that are rewritten several times a second: the
    budget seconds used, and how many of them pass in one second of our own time.
    """

    def __init__(self) -> None:
        cpu, self.page = os.environ["GOLF_CLOCK"] != "wall", os.environ.get("GOLF_CLOCK_FILE")
        self.now = time.process_time if cpu else time.monotonic
        self.budget = float(os.environ["GOLF_BUDGET_SECONDS"]) - EXPORT_SECONDS
        self.told, self.used, self.speed, self.since = "", 0.0, 1.0, 0.0 if cpu else self.now()

    def share(self) -> float:
        if self.page and (told := Path(self.page).read_text()) != self.told:
            self.told, self.since = told, self.now()
            self.used, self.speed = map(float, told.split())
        return (self.used + (self.now() - self.since) * self.speed) / self.budget


def read_documents(folder: Path) -> list[bytes]:
    with open(folder / "train.jsonl", encoding="utf-8") as lines:
        return [json.loads(line)["text"].encode() for line in lines]


def batches(tokens: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random windows: inputs and targets, each (BATCH_SIZE, SEQ_LEN)."""
    while True:
        start = torch.randint(len(tokens) - SEQ_LEN - 1, (BATCH_SIZE, 1), generator=generator)
        window = tokens[start + torch.arange(SEQ_LEN + 1)]
        yield window[:, :-1], window[:, 1:]


def learning_rate(share: float) -> float:
    """Trapezoid: linear warm-up, flat, linear warm-down to zero at the end of the budget."""
    return max(0.0, min(1.0, share / WARMUP_SHARE, (1 - share) / WARMDOWN_SHARE))


# -- Export: symmetric integers with one scale a row, then one compressed file.
def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Rows of a matrix to integers of so many bits, and a float16 scale a row."""
    levels = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / levels

    scale = scale.half().float().clamp(min=1e-7)
    return (weight / scale).round().clamp(-levels, levels).to(torch.int8), scale.half()


def compress(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(raw)


def decompress(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(packed)


def export(model: nn.Module, tokenizer: Tokenizer, path: Path) -> int:
    """Write the artifact; gives its bytes."""
    chunks = [np.array(tokenizer.merges, dtype=np.uint16).tobytes(), tokenizer.alphabet]
    for weight in model.state_dict().values():
        if weight.ndim == 2:
            integers, scale = quantize(weight.float(), WEIGHT_BITS)
            chunks += [scale.numpy().tobytes(), integers.numpy().tobytes()]
        else:
            chunks.append(weight.half().numpy().tobytes())
    head = struct.pack("<HH", len(tokenizer.merges), len(tokenizer.alphabet))
    return path.write_bytes(compress(head + b"".join(chunks)))


def read_artifact(path: Path) -> tuple[nn.Module, Tokenizer]:
    stream = io.BytesIO(decompress(path.read_bytes()))

    def take(count: int, dtype: str) -> np.ndarray:
        return np.frombuffer(stream.read(count * np.dtype(dtype).itemsize), dtype).copy()

    num_merges, num_bytes = take(2, "<u2").tolist()
    merges = [(int(a), int(b)) for a, b in take(2 * num_merges, "<u2").reshape(-1, 2)]
    tokenizer = Tokenizer(take(num_bytes, "u1").tobytes(), merges)
    model = GPT()
    state = model.state_dict()
    for name, weight in state.items():
        if weight.ndim == 2:
            scale = torch.from_numpy(take(weight.size(0), "<f2")).float()
            integers = torch.from_numpy(take(weight.numel(), "i1")).view(weight.shape)
            state[name] = integers.float() * scale[:, None]
        else:
            state[name] = torch.from_numpy(take(weight.numel(), "<f2")).float().view(weight.shape)
    model.load_state_dict(state)
    return model, tokenizer


# -- Prediction: what is scored.
class Predictor:
    """Reads a document once, left to right; see the course's contract for each method."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model, self.vocab_size = model.eval(), VOCAB_SIZE
        self.encode, self.decode = tokenizer.encode, tokenizer.decode
        self.begin_document()

    def begin_document(self) -> None:
        self.seen = torch.tensor([ESCAPE])

    @torch.inference_mode()
    def predict(self, tokens: Tensor) -> Tensor:
        """Logits (n, vocab_size) of the document's next n tokens, row i from those before i alone."""
        first, tokens = len(self.seen), torch.cat((self.seen, tokens.long()))
        self.seen = tokens
        rows = []
        # Window w scores positions w * EVAL_STRIDE + 1 ... (w + 1) * EVAL_STRIDE of the document.
        for window in range((first - 1) // EVAL_STRIDE, (len(tokens) - 2) // EVAL_STRIDE + 1):
            end = min((window + 1) * EVAL_STRIDE, len(tokens) - 1)
            start = max(0, (window + 1) * EVAL_STRIDE - SEQ_LEN)
            scored = end - max(window * EVAL_STRIDE, first - 1)
            rows.append(self.model(tokens[None, start:end])[0, -scored:])
        return torch.cat(rows) if rows else torch.empty(0, self.vocab_size)


def load(artifact: Path) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(*read_artifact(artifact))


# -- Training.
def main() -> None:
    clock = Clock()
    torch.set_num_threads(1)
    generator = torch.manual_seed(int(os.environ["GOLF_SEED"]))

    documents = read_documents(Path(os.environ["GOLF_DATA_DIR"]))
    tokenizer = Tokenizer.train(documents, VOCAB_SIZE)
    tokens = torch.tensor([i for text in documents for i in [ESCAPE, *tokenizer.encode(text)]])
    print(f"tokens:{len(tokens)} bytes_per_token:{sum(map(len, documents)) / len(tokens):.3f}")

    model = GPT()
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    scalars = [p for p in model.parameters() if p.ndim != 2]
    embeddings = [p for p in model.parameters() if p.ndim == 2 and all(p is not m for m in matrices)]
    groups = [{"params": embeddings, "lr": EMBED_LR}, {"params": scalars, "lr": SCALAR_LR}]
    adam = torch.optim.Adam(groups, betas=(ADAM_BETA1, ADAM_BETA2), eps=1e-10, fused=True)
    optimizers = [Muon(matrices, MATRIX_LR), adam]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]

    step, smooth_loss = 0, 0.0
    told_steps = int(os.environ.get("GOLF_STEPS", "0"))
    for inputs, targets in batches(tokens, generator):
        share = step / told_steps if told_steps else clock.share()
        if share >= 1:
            break

        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * learning_rate(share)

        logits = model(inputs)
        loss = F.cross_entropy(logits.view(-1, VOCAB_SIZE), targets.reshape(-1))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        step += 1
        smooth_loss += (loss.item() - smooth_loss) * max(0.02, 1 / step)
        if step % 50 == 0:
            print(f"step:{step} share:{share:.3f} train_loss:{smooth_loss:.4f}", flush=True)

    size = export(model, tokenizer, Path(os.environ["GOLF_ARTIFACT"]))
    print(f"step:{step} share:{clock.share():.3f} train_loss:{smooth_loss:.4f} artifact_bytes:{size}")


if __name__ == "__main__":
    main()
