"""One optimiser for both kinds of parameters."""
# ruff: noqa

import torch


def orthogonal(g, steps):
    x = g.bfloat16()
    x = x / (x.norm() * 1.02 + 1e-6)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x


class MuonAdamW(torch.optim.Optimizer):
    def __init__(self, groups):
        super().__init__(groups, defaults={"eps": 1e-10, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                if group["kind"] == "muon":
                    buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    update = p.grad.lerp(buffer, group["momentum"])
                    p.add_(orthogonal(update, group["ns_steps"]), alpha=-group["lr"])
                else:
                    beta1, beta2 = group["betas"]
                    m = state.setdefault("m", torch.zeros_like(p))
                    v = state.setdefault("v", torch.zeros_like(p))
                    state["step"] = state.get("step", 0) + 1
                    m.lerp_(p.grad, 1 - beta1)
                    v.lerp_(p.grad.square(), 1 - beta2)
                    unbiased = m / (1 - beta1 ** state["step"])
                    p.addcdiv_(unbiased, (v / (1 - beta2 ** state["step"])).sqrt() + group["eps"], value=-group["lr"])
