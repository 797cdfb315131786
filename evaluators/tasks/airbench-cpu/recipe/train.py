"""Train the network on the public images and save its weights."""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from model import Network

# Budget of training
EPOCHS = 17
BATCH_SIZE = 100

# Optimiser: SGD with Nesterov momentum
PEAK_LR = 0.4
MOMENTUM = 0.9
NESTEROV = True

# Schedule: the learning rate rises linearly, then falls linearly
WARMUP_SHARE = 0.2
"""Share of all steps in which the learning rate rises."""
START_FACTOR = 0.2
END_FACTOR = 0.02
"""Learning rate at the first and last step, relative to PEAK_LR."""

# Regularisation
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1

# Augmentation, drawn anew for each image in each epoch
SHIFT_PIXELS = 0.5
"""Largest shift along each axis; fractions of a pixel are interpolated."""
TURN_DEGREES = 8.0
"""Largest turn about the middle of the image."""


def learning_rate(step: int, steps: int) -> float:
    """Learning rate of `step` (from 0) out of `steps`."""
    warmup_steps = max(1, round(WARMUP_SHARE * steps))
    if step < warmup_steps:
        factor = START_FACTOR + (1 - START_FACTOR) * step / warmup_steps
    else:
        factor = 1 + (END_FACTOR - 1) * (step - warmup_steps) / max(1, steps - warmup_steps)
    return PEAK_LR * factor


def augment(images: torch.Tensor) -> torch.Tensor:
    """Turn and shift each image [N,1,H,W] by its own random amounts; zeros come in at the edges."""
    count, size = len(images), images.shape[-1]
    angles = torch.empty(count).uniform_(-TURN_DEGREES, TURN_DEGREES).deg2rad()
    # Affine maps act on coordinates that run from -1 to 1 across the image.
    shifts = torch.empty(count, 2, 1).uniform_(-SHIFT_PIXELS, SHIFT_PIXELS) * (2 / size)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([turns, shifts], dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the training loss for logits [N,10] and class ids [N]."""
    return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)


def optimizer_for(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Weight decay acts on matrices and kernels; gains and biases are left alone."""
    kernels = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=PEAK_LR, momentum=MOMENTUM, nesterov=NESTEROV)


def train(images: torch.Tensor, labels: torch.Tensor) -> Network:
    """A network trained on images [N,1,8,8] and class ids [N]."""
    network = Network()
    optimizer = optimizer_for(network)
    # The last, incomplete batch of an epoch is dropped: each step then has the same noise.
    epoch_steps = len(images) // BATCH_SIZE
    steps = EPOCHS * epoch_steps
    network.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        views = augment(images)
        for batch in range(epoch_steps):
            rate = learning_rate(epoch * epoch_steps + batch, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            loss = loss_of(network(views[chosen]), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    images = torch.from_numpy(np.load(arguments.data / "train_images.npy"))
    labels = torch.from_numpy(np.load(arguments.data / "train_labels.npy"))
    network = train(images, labels)
    torch.save(network.state_dict(), arguments.out / "model.pt")


if __name__ == "__main__":
    main()
