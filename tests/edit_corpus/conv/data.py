"""CIFAR-10 on the GPU with flips, shifts and cutout."""
# ruff: noqa

import os

import torch
import torch.nn.functional as F
import torchvision

CIFAR_MEAN = torch.tensor((0.4914, 0.4822, 0.4465))
CIFAR_STD = torch.tensor((0.2470, 0.2435, 0.2616))


def batch_flip_lr(images):
    mask = (torch.rand(len(images), device=images.device) < 0.5).view(-1, 1, 1, 1)
    return torch.where(mask, images.flip(-1), images)


def batch_crop(images, crop_size):
    r = (images.size(-1) - crop_size) // 2
    shifts = torch.randint(-r, r + 1, size=(len(images), 2), device=images.device)
    out = torch.empty((len(images), 3, crop_size, crop_size), device=images.device, dtype=images.dtype)
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            mask = (shifts[:, 0] == dy) & (shifts[:, 1] == dx)
            out[mask] = images[mask, :, r + dy : r + dy + crop_size, r + dx : r + dx + crop_size]
    return out


def batch_cutout(images, size):
    n, _, h, w = images.shape
    y = torch.randint(0, h - size + 1, (n, 1, 1), device=images.device)
    x = torch.randint(0, w - size + 1, (n, 1, 1), device=images.device)
    rows = torch.arange(h, device=images.device).view(1, h, 1)
    cols = torch.arange(w, device=images.device).view(1, 1, w)
    mask = (rows >= y) & (rows < y + size) & (cols >= x) & (cols < x + size)
    return images.masked_fill(mask.unsqueeze(1), 0)


class CifarLoader:
    def __init__(self, path, train=True, batch_size=500, aug=None):
        file = os.path.join(path, "train.pt" if train else "test.pt")
        if not os.path.exists(file):
            dataset = torchvision.datasets.CIFAR10(path, download=True, train=train)
            torch.save({"images": torch.tensor(dataset.data), "labels": torch.tensor(dataset.targets)}, file)
        stored = torch.load(file, map_location="cuda")
        self.labels = stored["labels"]
        self.images = (stored["images"].half() / 255).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
        self.aug = aug or {}
        self.batch_size = batch_size
        self.train = train
        self.epoch = 0

    def normalized(self):
        mean, std = CIFAR_MEAN.to("cuda").view(1, 3, 1, 1), CIFAR_STD.to("cuda").view(1, 3, 1, 1)
        return (self.images - mean.half()) / std.half()

    def __len__(self):
        whole = len(self.images) // self.batch_size
        return whole if self.train else -(-len(self.images) // self.batch_size)

    def __iter__(self):
        images = self.normalized()
        if self.aug.get("translate", 0) > 0:
            pad = self.aug["translate"]
            images = batch_crop(F.pad(images, (pad,) * 4, "reflect"), 32)
        if self.aug.get("flip", False):
            images = batch_flip_lr(images)
        if self.aug.get("cutout", 0) > 0:
            images = batch_cutout(images, self.aug["cutout"])
        self.epoch += 1
        indices = torch.randperm(len(images), device=images.device)
        for i in range(len(self)):
            chosen = indices[i * self.batch_size : (i + 1) * self.batch_size]
            yield images[chosen], self.labels[chosen]
