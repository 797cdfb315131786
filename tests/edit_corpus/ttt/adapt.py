"""Adapts a trained model to the text it is scored on: score a piece first, learn from it afterwards."""
# ruff: noqa

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class AdaptConfig:
    piece: int = 4096
    rate: float = 1e-3
    passes: int = 2
    inertia: float = 0.9
    rank: int = 8
    only: str = "lora"
    reset_each_document: bool = True
    anchor: float = 0.0
    cap: float = 1.0


class LowRank(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


def attach(model: nn.Module, rank: int) -> list[nn.Parameter]:
    found = []
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                wrapped = LowRank(child, rank)
                setattr(module, name, wrapped)
                found += [wrapped.a, wrapped.b]
    return found


def trainable(model: nn.Module, c: AdaptConfig) -> list[nn.Parameter]:
    if c.only == "lora":
        return attach(model, c.rank)
    return [p for name, p in model.named_parameters() if c.only in name]


def score_piece(model, ids):
    with torch.no_grad():
        logits = model(ids[None, :-1])[0]
    return F.cross_entropy(logits, ids[1:], reduction="none")


def evaluate_adaptively(model: nn.Module, documents: list[torch.Tensor], c: AdaptConfig) -> float:
    params = trainable(model, c)
    start = [p.detach().clone() for p in params]
    optimizer = torch.optim.SGD(params, lr=c.rate, momentum=c.inertia)
    total, count = 0.0, 0
    for document in documents:
        if c.reset_each_document:
            with torch.no_grad():
                for p, value in zip(params, start):
                    p.copy_(value)
        for at in range(0, len(document) - 1, c.piece):
            ids = document[at : at + c.piece + 1]
            losses = score_piece(model, ids)
            total += losses.sum().item()
            count += losses.numel()
            for _ in range(c.passes):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(ids[None, :-1])[0], ids[1:])
                if c.anchor > 0:
                    loss = loss + c.anchor * sum((p - s).square().sum() for p, s in zip(params, start))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(params, c.cap)
                optimizer.step()
    return total / count / math.log(2)
