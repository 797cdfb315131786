"""CIFAR-10 in a few seconds: a small residual conv net, SGD, test-time flips."""
# ruff: noqa

import time

import torch
import torch.nn.functional as F
from data import CifarLoader
from torch import nn

hyp = {
    "opt": {
        "train_epochs": 45.0,
        "batch_size": 1024,
        "lr": 9.0,
        "momentum": 0.85,
        "weight_decay": 0.012,
        "bias_scaler": 64.0,
        "label_smoothing": 0.2,
        "whiten_bias_epochs": 3,
        "ema_every": 5,
        "ema_rate": 0.95,
    },
    "aug": {"flip": True, "translate": 4, "cutout": 12},
    "proxy": {"widths": {"block1": 32, "block2": 64, "block3": 64}, "depth": 2, "keep_frac": 0.5},
    "net": {
        "widths": {"block1": 128, "block2": 384, "block3": 512},
        "depth": 3,
        "scaling_factor": 1 / 9,
        "tta_level": 2,
    },
}


class BatchNorm(nn.BatchNorm2d):
    def __init__(self, num_features, momentum=0.6, eps=1e-12):
        super().__init__(num_features, eps=eps, momentum=1 - momentum)
        self.weight.requires_grad = False


class Conv(nn.Conv2d):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel_size=3, padding="same", bias=False)

    def reset_parameters(self):
        super().reset_parameters()
        w = self.weight.data
        torch.nn.init.dirac_(w[: w.size(1)])


class ConvGroup(nn.Module):
    def __init__(self, channels_in, channels_out, depth):
        super().__init__()
        self.depth = depth
        self.conv1 = Conv(channels_in, channels_out)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = BatchNorm(channels_out)
        self.conv2 = Conv(channels_out, channels_out)
        self.norm2 = BatchNorm(channels_out)
        if depth == 3:
            self.conv3 = Conv(channels_out, channels_out)
            self.norm3 = BatchNorm(channels_out)
        self.activ = nn.GELU()

    def forward(self, x):
        x = self.conv1(x)
        x = self.pool(x)
        x = self.norm1(x)
        x = self.activ(x)
        if self.depth == 3:
            x0 = x
        x = self.conv2(x)
        x = self.norm2(x)
        x = self.activ(x)
        if self.depth == 3:
            x = self.conv3(x)
            x = self.norm3(x)
            x = x + x0
            x = self.activ(x)
        return x


class Net(nn.Module):
    def __init__(self, widths, depth, scale):
        super().__init__()
        whiten_width = 2 * 3 * 2**2
        self.whiten = nn.Conv2d(3, whiten_width, 2, padding=0, bias=True)
        self.whiten.weight.requires_grad = False
        self.layers = nn.Sequential(
            nn.GELU(),
            ConvGroup(whiten_width, widths["block1"], depth),
            ConvGroup(widths["block1"], widths["block2"], depth),
            ConvGroup(widths["block2"], widths["block3"], depth),
            nn.MaxPool2d(3),
        )
        self.head = nn.Linear(widths["block3"], 10, bias=False)
        self.scale = scale

    def init_whiten(self, train_images, eps=5e-4):
        c, (h, w) = train_images.shape[1], self.whiten.weight.shape[2:]
        patches = train_images.unfold(2, h, 1).unfold(3, w, 1).transpose(1, 3).reshape(-1, c, h, w).float()
        flat = patches.view(len(patches), -1)
        covariance = flat.T @ flat / len(flat)
        values, vectors = torch.linalg.eigh(covariance, UPLO="U")
        scaled = vectors.T.reshape(-1, c, h, w) / torch.sqrt(values.view(-1, 1, 1, 1) + eps)
        self.whiten.weight.data[:] = torch.cat((scaled, -scaled))

    def forward(self, x, whiten_bias_grad=True):
        b = self.whiten.bias
        x = F.conv2d(x, self.whiten.weight, b if whiten_bias_grad else b.detach())
        x = self.layers(x)
        x = x.view(len(x), -1)
        return self.head(x) * self.scale


class LookaheadState:
    def __init__(self, net):
        self.net_ema = {k: v.clone() for k, v in net.state_dict().items()}

    def update(self, net, decay):
        for ema_param, net_param in zip(self.net_ema.values(), net.state_dict().values()):
            if net_param.dtype in (torch.half, torch.float):
                ema_param.lerp_(net_param, 1 - decay)
                net_param.copy_(ema_param)


def infer_basic(inputs, net):
    return net(inputs).clone()


def infer_mirror(inputs, net):
    return 0.5 * net(inputs) + 0.5 * net(inputs.flip(-1))


def infer_mirror_translate(inputs, net):
    logits = infer_mirror(inputs, net)
    pad = 1
    padded = F.pad(inputs, (pad,) * 4, "reflect")
    shifted = [padded[:, :, 0:32, 0:32], padded[:, :, 2:34, 2:34]]
    logits_shifted = torch.stack([infer_mirror(x, net) for x in shifted]).mean(0)
    return 0.5 * logits + 0.5 * logits_shifted


def evaluate(net, loader, tta_level=0):
    net.eval()
    infer = [infer_basic, infer_mirror, infer_mirror_translate][tta_level]
    with torch.no_grad():
        logits = torch.cat([infer(inputs, net) for inputs in loader.normalized().split(2000)])
    return (logits.argmax(1) == loader.labels).float().mean().item()


def make_net(widths, depth):
    net = Net(widths, depth, hyp["net"]["scaling_factor"])
    net = net.cuda().half().to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.float()
    return net


def triangle(steps, start=0.0, end=0.0, peak=0.5):
    xs = torch.arange(1 + steps, dtype=torch.float)
    up, down = xs / (peak * steps), (steps - xs) / ((1 - peak) * steps)
    return torch.minimum(start + (1 - start) * up, end + (1 - end) * down)


def train(seed):
    torch.manual_seed(seed)
    batch_size = hyp["opt"]["batch_size"]
    epochs = hyp["opt"]["train_epochs"]
    kilostep_scale = 1024 * (1 + 1 / (1 - hyp["opt"]["momentum"]))
    lr = hyp["opt"]["lr"] / kilostep_scale
    wd = hyp["opt"]["weight_decay"] * batch_size / kilostep_scale
    lr_biases = lr * hyp["opt"]["bias_scaler"]
    loss_fn = nn.CrossEntropyLoss(label_smoothing=hyp["opt"]["label_smoothing"], reduction="none")
    test_loader = CifarLoader("cifar10", train=False, batch_size=2000)
    train_loader = CifarLoader("cifar10", train=True, batch_size=batch_size, aug=hyp["aug"])
    total_train_steps = int(len(train_loader) * epochs)

    net = make_net(hyp["net"]["widths"], hyp["net"]["depth"])
    net.init_whiten(train_loader.normalized()[:5000])
    proxy = make_net(hyp["proxy"]["widths"], hyp["proxy"]["depth"])
    proxy.init_whiten(train_loader.normalized()[:5000])
    net = torch.compile(net, mode="max-autotune")

    norm_biases = [p for k, p in net.named_parameters() if "norm" in k and p.requires_grad]
    other_params = [p for k, p in net.named_parameters() if "norm" not in k and p.requires_grad]
    param_configs = [
        dict(params=norm_biases, lr=lr_biases, weight_decay=wd / lr_biases),
        dict(params=other_params, lr=lr, weight_decay=wd / lr),
    ]
    optimizer = torch.optim.SGD(param_configs, momentum=hyp["opt"]["momentum"], nesterov=True)
    proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=lr, momentum=hyp["opt"]["momentum"], nesterov=True)
    schedule = triangle(total_train_steps, start=0.2, end=0.07, peak=0.23)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: schedule[i].item())
    alpha_schedule = hyp["opt"]["ema_rate"] ** 5 * (torch.arange(total_train_steps + 1) / total_train_steps) ** 3
    lookahead = LookaheadState(net)

    start = time.perf_counter()
    step = 0
    for epoch in range(int(epochs)):
        net.train()
        for inputs, labels in train_loader:
            with torch.no_grad():
                hardness = loss_fn(proxy(inputs), labels)
                keep = hardness.topk(int(len(labels) * hyp["proxy"]["keep_frac"])).indices
            outputs = net(inputs[keep], whiten_bias_grad=epoch < hyp["opt"]["whiten_bias_epochs"])
            loss = loss_fn(outputs, labels[keep]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            if step % 4 == 0:
                proxy_optimizer.zero_grad(set_to_none=True)
                loss_fn(proxy(inputs), labels).sum().backward()
                proxy_optimizer.step()
            step += 1
            if step % hyp["opt"]["ema_every"] == 0:
                lookahead.update(net, decay=alpha_schedule[step].item())
    lookahead.update(net, decay=1.0)
    torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    accuracy = evaluate(net, test_loader, tta_level=hyp["net"]["tta_level"])
    print(f"accuracy={accuracy:.4f} seconds={elapsed:.3f}")
    return accuracy, elapsed


if __name__ == "__main__":
    train(0)
