"""Turns a trained checkpoint into the smallest artifact that still predicts well."""
# ruff: noqa

import io
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from model import Config, TinyLM
from torch import Tensor

EMBED_GROUP = 64


@dataclass
class Settings:
    width: int = 6
    group: int = 128
    outlier_frac: float = 0.005
    search_points: int = 20
    level: int = 9
    prune_below: float = 0.0
    keep: tuple = ("norm", "bias")


def grid_search_scale(block: Tensor, top: int, points: int) -> Tensor:
    """The scale with the least squared error among `points` shrunken copies of the largest one."""
    peak = block.abs().amax(dim=-1, keepdim=True).clamp_min(1e-8)
    best = torch.full_like(peak, float("inf"))
    chosen = peak / top
    for i in range(points):
        scale = peak * (1.0 - 0.5 * i / points) / top
        error = ((block / scale).round().clamp(-top, top) * scale - block).square().mean(dim=-1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, scale, chosen)
    return chosen


def to_groups(weight: Tensor, group: int) -> Tensor:
    rows, cols = weight.shape
    padding = (-cols) % group
    return torch.nn.functional.pad(weight, (0, padding)).reshape(rows, -1, group)


def encode_matrix(weight: Tensor, s: Settings) -> dict:
    top = 2 ** (s.width - 1) - 1
    w = weight.float()
    if s.prune_below > 0:
        w = torch.where(w.abs() < s.prune_below, torch.zeros_like(w), w)
    limit = torch.quantile(w.abs().flatten()[: 2**24], 1.0 - s.outlier_frac)
    outliers = w.abs() > limit
    indices = outliers.flatten().nonzero().squeeze(1).to(torch.int32)
    values = w.flatten()[indices.long()].half()
    dense = torch.where(outliers, torch.zeros_like(w), w)
    groups = to_groups(dense, s.group)
    scale = grid_search_scale(groups, top, s.search_points)
    codes = (groups / scale).round().clamp(-top, top).to(torch.int8)
    return {"codes": codes, "scale": scale.half(), "indices": indices, "values": values, "shape": tuple(w.shape)}


def decode_matrix(entry: dict) -> Tensor:
    rows, cols = entry["shape"]
    dense = (entry["codes"].float() * entry["scale"].float()).reshape(rows, -1)[:, :cols].contiguous()
    dense.view(-1)[entry["indices"].long()] = entry["values"].float()
    return dense


def nibble_rows(codes: np.ndarray) -> bytes:
    """Sorts bytes by position so that equal ones meet."""
    return codes.astype(np.int8).T.tobytes()


def export(model: TinyLM, s: Settings) -> bytes:
    entries = {}
    for name, tensor in model.state_dict().items():
        if tensor.ndim < 2 or any(word in name for word in s.keep):
            entries[name] = tensor.half()
        else:
            entries[name] = encode_matrix(tensor, s)
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return zlib.compress(buffer.getvalue(), s.level)


def restore(blob: bytes, config: Config) -> TinyLM:
    model = TinyLM(config)
    entries = torch.load(io.BytesIO(zlib.decompress(blob)), weights_only=False)
    state = {k: decode_matrix(v) if isinstance(v, dict) else v.float() for k, v in entries.items()}
    model.load_state_dict(state)
    return model
