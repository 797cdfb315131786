"""Logits of the next byte for each position of the given windows, with saved weights."""

import argparse
import lzma
from pathlib import Path

import numpy as np
import torch
from model import Network

BATCH_WINDOWS = 16
"""Windows at a time; bounds memory, does not change the answer."""
LOGIT_FACTOR = 1.0
"""Multiplies the logits: below 1 the predictions are more cautious than the network's."""


def unpack(network: Network, packed: bytes) -> None:
    """Load what `pack` in train.py wrote; it tells the layout."""
    content = lzma.decompress(packed)
    place = 0
    for weight in network.state_dict().values():
        width = weight.shape[-1]
        height = weight.numel() // width
        scales = np.frombuffer(content, np.float32, height, place)
        place += scales.nbytes
        integers = np.frombuffer(content, np.int8, height * width, place)
        place += integers.nbytes
        rows = integers.reshape(height, width) * scales[:, None]
        weight.copy_(torch.from_numpy(rows).reshape(weight.shape))


def predict(network: Network, windows: torch.Tensor) -> torch.Tensor:
    """Logits float32 [N,T,256] for windows uint8 [N,T]."""
    return torch.cat([LOGIT_FACTOR * network(batch) for batch in windows.split(BATCH_WINDOWS)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = Network()
    unpack(network, (arguments.model / "weights.xz").read_bytes())
    windows = torch.from_numpy(np.load(arguments.input))
    with torch.inference_mode():
        np.save(arguments.output, predict(network, windows).numpy())


if __name__ == "__main__":
    main()
