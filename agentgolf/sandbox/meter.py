"""Says how fast a core is: for each core number on a line, the speed of a fixed piece of work there.

Run as a script by `clock.SpeedMeter`; imports nothing of ours. The work is one training step of a small
transformer, since cores slow down differently for different kinds of work: measured against a training
run of the embedded course, this step follows its speed with slope 1 (docs/course.md).
"""

import os
import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)

# CPU-seconds of one step on the reference machine, by definition of the reference second.
REFERENCE_STEP_SECONDS = 0.0145


class ReferenceStep:
    """Forward and backward of one transformer block, 2,048 tokens, width 64, vocabulary 512."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.embedding, self.up, self.down, self.qkv = (
            (torch.randn(*shape) * 0.05).requires_grad_() for shape in ((512, 64), (128, 64), (64, 128), (192, 64))
        )
        self.inputs, self.targets = torch.randint(512, (16, 128)), torch.randint(512, (2048,))

    def run(self) -> float:
        """CPU-seconds that one step took."""
        start = time.thread_time()
        x = F.rms_norm(F.embedding(self.inputs, self.embedding), (64,))
        q, k, v = F.linear(x, self.qkv).view(16, 128, 6, 32).transpose(1, 2).chunk(3, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).reshape(16, 128, 64)
        x = x + F.linear(F.relu(F.linear(F.rms_norm(x, (64,)), self.up)).square(), self.down)
        F.cross_entropy(F.linear(x, self.embedding).view(-1, 512), self.targets).backward()  # type: ignore[no-untyped-call]
        for weight in (self.embedding, self.up, self.down, self.qkv):
            weight.grad = None
        return time.thread_time() - start


def main() -> None:
    torch.set_num_threads(1)
    step = ReferenceStep()
    for _ in range(3):
        step.run()
    for line in sys.stdin:
        os.sched_setaffinity(0, {int(line)})
        step.run()  # fills the caches of this core
        sys.stdout.write(f"{REFERENCE_STEP_SECONDS / step.run():.6f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
