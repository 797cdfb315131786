"""The network: two blocks of convolutions over 8x8 grey images, and a linear head."""

import torch
from torch import nn

CLASS_COUNT = 10
STEM_WIDTH = 8
"""Channels of the first convolution."""
BLOCK_WIDTHS = (24, 48)
"""Channels of each block; every block halves the image."""
BLOCK_DEPTH = 1
"""Convolutions in a block."""
KERNEL_SIZE = 3
BATCHNORM_MOMENTUM = 0.4
"""Share of the newest batch in the running statistics; large, because training is short."""
LOGIT_SCALE = 1 / 4
"""Factor on the head's output, so that training starts from nearly equal probabilities."""


class Stage(nn.Module):
    """Convolution, normalisation, activation: [N,C,H,W] -> [N,width,H,W], or half the size with `pool`."""

    def __init__(self, channels: int, width: int, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(width, momentum=BATCHNORM_MOMENTUM)
        self.activation = nn.GELU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.activation(self.norm(self.pool(self.conv(images))))
        return hidden


class Network(nn.Module):
    """Images [N,1,8,8] in 0..1 -> logits [N,10]."""

    def __init__(self) -> None:
        super().__init__()
        stages = [Stage(1, STEM_WIDTH, pool=False)]
        channels = STEM_WIDTH
        for width in BLOCK_WIDTHS:
            for depth in range(BLOCK_DEPTH):
                stages.append(Stage(channels, width, pool=depth == 0))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, CLASS_COUNT, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # About zero mean and unit variance: the first kernels start in a useful range.
        hidden: torch.Tensor = self.stages((images - 0.3) * 3)
        hidden = hidden.amax(dim=(2, 3))  # [N,C]
        logits: torch.Tensor = self.head(hidden) * LOGIT_SCALE
        return logits
