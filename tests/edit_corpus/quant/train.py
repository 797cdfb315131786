"""Trains the model, exports it, checks what the export costs."""
# ruff: noqa

import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from export import Settings, export, restore
from model import Config, TinyLM

STEPS = 3000
PEAK = 3e-3
WARM = 200
BATCH = 64
DECAY = 0.1
CLIP = 1.0


def batches(tokens, size, context, generator):
    while True:
        at = torch.randint(len(tokens) - context - 1, (size,), generator=generator)
        window = torch.stack([tokens[i : i + context + 1] for i in at])
        yield window[:, :-1], window[:, 1:]


def rate(step):
    if step < WARM:
        return PEAK * (step + 1) / WARM
    return PEAK * 0.5 * (1 + math.cos(math.pi * (step - WARM) / (STEPS - WARM)))


def held_out_loss(model, tokens, context):
    model.eval()
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(tokens) - context - 1, context):
            logits = model(tokens[None, i : i + context])
            total += F.cross_entropy(logits[0], tokens[i + 1 : i + context + 1], reduction="sum").item()
    return total / len(tokens)


def main(path):
    tokens = torch.from_numpy(np.fromfile(path, dtype=np.uint16).astype(np.int64))
    train, held = tokens[:-100_000], tokens[-100_000:]
    config = Config()
    model = TinyLM(config)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    source = batches(train, BATCH, config.context, torch.Generator().manual_seed(0))
    for step in range(STEPS):
        x, y = next(source)
        logits = model(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}")
    blob = export(model, Settings())
    print(f"bytes {len(blob)}")
    print(f"before {held_out_loss(model, held, config.context):.4f}")
    print(f"after {held_out_loss(restore(blob, config), held, config.context):.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
