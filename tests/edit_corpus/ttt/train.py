"""A recurrent byte model and the loop that trains it; scored with adaptation."""
# ruff: noqa

import os
import time

import torch
import torch.nn.functional as F
from adapt import AdaptConfig, evaluate_adaptively
from torch import nn


class Args:
    width = int(os.getenv("WIDTH", "384"))
    cells = int(os.getenv("CELLS", "3"))
    hold = float(os.getenv("HOLD", "0.1"))
    budget_seconds = float(os.getenv("BUDGET_SECONDS", "300"))
    cooldown = float(os.getenv("COOLDOWN", "0.4"))
    peak_lr = float(os.getenv("PEAK_LR", "2e-3"))
    decay = float(os.getenv("DECAY", "0.05"))
    span = int(os.getenv("SPAN", "256"))
    rows = int(os.getenv("ROWS", "32"))
    average = float(os.getenv("AVERAGE", "0.995"))
    threads = int(os.getenv("THREADS", "2"))


class Cell(nn.Module):
    def __init__(self, width: int, hold: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(hold)

    def forward(self, x):
        value, gate = self.mix(self.norm(x)).chunk(2, dim=-1)
        gate = torch.sigmoid(gate)
        state = torch.zeros_like(value[:, 0])
        outputs = []
        for t in range(x.size(1)):
            state = gate[:, t] * state + (1 - gate[:, t]) * value[:, t]
            outputs.append(state)
        return x + self.drop(self.out(torch.tanh(torch.stack(outputs, dim=1))))


class ByteModel(nn.Module):
    def __init__(self, a: type[Args]) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, a.width)
        self.cells = nn.Sequential(*(Cell(a.width, a.hold) for _ in range(a.cells)))
        self.head = nn.Linear(a.width, 256)

    def forward(self, ids):
        return self.head(self.cells(self.embed(ids)))


def pieces(text: torch.Tensor, rows: int, span: int):
    usable = (len(text) - 1) // (rows * span) * rows * span
    x = text[:usable].view(rows, -1, span).transpose(0, 1)
    y = text[1 : usable + 1].view(rows, -1, span).transpose(0, 1)
    while True:
        yield from zip(x, y)


def main():
    a = Args
    torch.set_num_threads(a.threads)
    text = torch.frombuffer(bytearray(open("train.bin", "rb").read()), dtype=torch.uint8).long()
    model = ByteModel(a)
    slow = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.peak_lr, weight_decay=a.decay)
    began = time.monotonic()
    for x, y in pieces(text, a.rows, a.span):
        progress = (time.monotonic() - began) / a.budget_seconds
        if progress >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = a.peak_lr * min(1.0, (1.0 - progress) / a.cooldown)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for k, v in model.state_dict().items():
                slow[k].lerp_(v, 1 - a.average)
    model.load_state_dict(slow)
    documents = [torch.frombuffer(bytearray(open(p, "rb").read()), dtype=torch.uint8).long() for p in ["held.bin"]]
    print(f"bits per byte {evaluate_adaptively(model, documents, AdaptConfig()):.4f}")


if __name__ == "__main__":
    main()
