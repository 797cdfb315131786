"""Classify images with saved weights."""

import argparse
from pathlib import Path

import numpy as np
import torch
from model import Network

BATCH_SIZE = 500
"""Images at a time; bounds memory, does not change the answer."""


def classify(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Class ids [N] of images [N,1,8,8]."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch).argmax(dim=1) for batch in images.split(BATCH_SIZE)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = Network()
    network.load_state_dict(torch.load(arguments.model / "model.pt", weights_only=True))
    images = torch.from_numpy(np.load(arguments.input))
    np.save(arguments.output, classify(network, images).numpy())


if __name__ == "__main__":
    main()
