"""The network: hashed embeddings of the last few bytes, mixed by a perceptron, give logits of the next."""

import torch
import torch.nn.functional as F
from torch import nn

BYTE_COUNT = 256

# Input features
BYTE_DIM = 32
"""Width of the embedding of the current byte."""
CONTEXT_LENGTHS = (2, 3, 4, 5, 6)
"""Each length gives one feature: an embedding of that many last bytes together, looked up by their hash."""
BUCKET_COUNT = 4_096
"""Rows of each table; contexts that hash to the same row share it."""
CONTEXT_DIM = 16
"""Width of the embedding of each context."""
HASH_FACTOR = 0x2F0B4C47
"""Odd and without pattern, so that similar contexts land in unrelated rows."""

# Body
WIDTH = 128
"""Width of the hidden layer."""


def rows_of(text: torch.Tensor) -> torch.Tensor:
    """Table rows of all contexts: bytes [B,T] -> int64 [B,T,len(CONTEXT_LENGTHS)].

    The context of length n at t is bytes t-n+1 to t; zeros stand in for what lies before the window.
    """
    symbols = text.long() + 1
    length = symbols.shape[1]
    state = symbols
    rows: list[torch.Tensor] = []
    for back in range(1, max(CONTEXT_LENGTHS)):
        earlier = F.pad(symbols, (back, 0))[:, :length]
        # 31 bits are kept: the product with a byte then fits into 63.
        state = ((state * HASH_FACTOR + earlier) ^ (state >> 15)) & 0x7FFF_FFFF
        if back + 1 in CONTEXT_LENGTHS:
            rows.append(((state >> 7) ^ state) % BUCKET_COUNT + len(rows) * BUCKET_COUNT)
    return torch.stack(rows, dim=-1)


class Network(nn.Module):
    """Logits of byte t+1 from bytes up to t: uint8 [B,T] -> float32 [B,T,256]."""

    def __init__(self) -> None:
        super().__init__()
        self.byte_table = nn.Embedding(BYTE_COUNT, BYTE_DIM)
        # All context tables in one, so that a step needs one lookup.
        self.context_table = nn.Embedding(len(CONTEXT_LENGTHS) * BUCKET_COUNT, CONTEXT_DIM)
        # Rows that training never touches stay zero: neutral for the network and free in the artifact.
        nn.init.zeros_(self.context_table.weight)
        self.mix = nn.Linear(BYTE_DIM + len(CONTEXT_LENGTHS) * CONTEXT_DIM, WIDTH)
        self.head = nn.Linear(WIDTH, BYTE_COUNT)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        contexts = self.context_table(rows_of(text)).flatten(2)
        features = torch.cat([self.byte_table(text.long()), contexts], dim=-1)
        hidden = F.relu(self.mix(features)).square()
        logits: torch.Tensor = self.head(F.rms_norm(hidden, (WIDTH,)))
        return logits
