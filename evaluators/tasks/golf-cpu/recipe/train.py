"""Train the network on the public text and save its weights, quantised and compressed."""

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import BYTE_COUNT, Network

# Budget of training: steps and not a clock, so that a seed gives the same weights on a busy machine
STEP_COUNT = 1_300

# Data
WINDOW_BYTES = 64
BATCH_WINDOWS = 8

# Optimiser: AdamW
PEAK_LR = 6e-3
TABLE_LR_FACTOR = 10.0
"""Embedding tables learn faster: each row is seen in few steps."""
BETAS = (0.9, 0.98)
EPSILON = 1e-8

# Schedule: the learning rate rises linearly, then falls linearly
WARMUP_SHARE = 0.05
"""Share of all steps in which the learning rate rises."""
END_FACTOR = 0.02
"""Learning rate at the last step, relative to PEAK_LR."""

# Regularisation
WEIGHT_DECAY = 0.0
"""Of the matrices; tables and biases are left alone."""
GRADIENT_LIMIT = 1.0
"""Longest gradient, as Euclidean norm; longer ones are scaled down."""

# Loss
LABEL_SMOOTHING = 0.0

# Quantisation
WEIGHT_BITS = 8
"""Bits a weight, 2 to 8: fewer compress better and lose more."""


def learning_rate(step: int) -> float:
    """Learning rate of `step`, from 0, before the factors of the groups."""
    warmup_steps = max(1, round(WARMUP_SHARE * STEP_COUNT))
    if step < warmup_steps:
        return PEAK_LR * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, STEP_COUNT - warmup_steps)
    return PEAK_LR * (1 + (END_FACTOR - 1) * progress)


def batches(text: torch.Tensor) -> Iterator[torch.Tensor]:
    """One batch a step: uint8 [BATCH_WINDOWS, WINDOW_BYTES + 1].

    The text is cut into as many equal parts as there are windows, and each gives one, in random order: all
    seeds see the same mixture of subjects, which makes their scores differ less.
    """
    count = STEP_COUNT * BATCH_WINDOWS
    room = len(text) - WINDOW_BYTES
    starts = ((torch.arange(count) + torch.rand(count, dtype=torch.float64)) * (room / count)).long()
    within = torch.arange(WINDOW_BYTES + 1)
    for chosen in starts[torch.randperm(count)].split(BATCH_WINDOWS):
        yield text[chosen[:, None] + within]


def loss_of(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Mean training loss in nats for logits [B,T,256] and bytes [B,T]."""
    return F.cross_entropy(
        logits.reshape(-1, BYTE_COUNT), following.reshape(-1).long(), label_smoothing=LABEL_SMOOTHING
    )


def optimizer_for(network: Network) -> torch.optim.Optimizer:
    """Each group has its `factor` of the learning rate."""
    tables = [network.byte_table.weight, network.context_table.weight]
    known = {id(weight) for weight in tables}
    matrices = [weight for weight in network.parameters() if weight.ndim > 1 and id(weight) not in known]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [
        {"params": tables, "factor": TABLE_LR_FACTOR, "weight_decay": 0.0},
        {"params": matrices, "factor": 1.0, "weight_decay": WEIGHT_DECAY},
        {"params": others, "factor": 1.0, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=BETAS, eps=EPSILON, fused=True)


def train(text: torch.Tensor) -> Network:
    """A network trained on `text`, uint8 [length]."""
    network = Network()
    optimizer = optimizer_for(network)
    for step, batch in enumerate(batches(text)):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step)
        loss = loss_of(network(batch[:, :-1]), batch[:, 1:])
        # Gradients are zeroed in place: new memory for the tables in each step costs more than clearing it.
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
        optimizer.step()
    return network


def pack(network: Network) -> bytes:
    """All weights, in the order of the state dict: for each, a float32 scale a row, then the rows as int8.

    A weight is about scale * integer; a vector counts as one row.
    """
    highest = 2 ** (WEIGHT_BITS - 1) - 1
    parts = []
    for weight in network.state_dict().values():
        rows = weight.reshape(-1, weight.shape[-1])
        scales = (rows.abs().amax(dim=1, keepdim=True) / highest).clamp_min(1e-12)
        parts.append(scales.numpy().astype(np.float32).tobytes())
        parts.append((rows / scales).round().numpy().astype(np.int8).tobytes())
    return lzma.compress(b"".join(parts), preset=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    text = torch.from_numpy(np.fromfile(arguments.data / "train.bin", dtype=np.uint8))
    (arguments.out / "weights.xz").write_bytes(pack(train(text)))


if __name__ == "__main__":
    main()
