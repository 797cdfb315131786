"""A language model small enough to export."""
# ruff: noqa

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Config:
    tokens: int = 512
    width: int = 256
    layers: int = 4
    heads: int = 4
    context: int = 256
    hidden_ratio: int = 4
    noise: float = 0.0


class Layer(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.width)
        self.norm2 = nn.LayerNorm(c.width)
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.out = nn.Linear(c.width, c.width)
        self.up = nn.Linear(c.width, c.hidden_ratio * c.width)
        self.down = nn.Linear(c.hidden_ratio * c.width, c.width)
        self.heads = c.heads
        self.noise = c.noise

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        h = F.gelu(self.up(self.norm2(x)))
        if self.training and self.noise > 0:
            h = h + self.noise * torch.randn_like(h)
        return x + self.down(h)


class TinyLM(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(c.tokens, c.width)
        self.wpe = nn.Embedding(c.context, c.width)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.size(1)]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.wte.weight.T
