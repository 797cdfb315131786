import os, time, math, copy, glob
from dataclasses import dataclass
import torch, torch.nn.functional as F
from torch import nn, Tensor
import torch.distributed as dist

def norm(x): return F.rms_norm(x, (x.size(-1),))

def zeropower_via_newtonschulz5(G, steps: int):
    a, b, c = (3.4445, -4.7750, 2.0315)
    X = G.bfloat16()
    if G.size(-2) > G.size(-1): X = X.mT
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        A = X @ X.mT
        B = b * A + c * A @ A
        X = a * X + B @ X
    if G.size(-2) > G.size(-1): X = X.mT
    return X

class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state: state["mb"] = torch.zeros_like(p.grad)
                buf = state["mb"]
                buf.lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp_(buf, group["momentum"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(zeropower_via_newtonschulz5(g, 5), alpha=-group["lr"])

class Rotary(nn.Module):
    def __init__(self, dim, max_seq_len):
        super().__init__()
        freq = (1 / 1024) ** torch.linspace(0, 1, steps=dim // 4)
        freq = torch.cat([freq, freq.new_zeros(dim // 4)])
        t = torch.arange(max_seq_len)
        theta = torch.einsum("i,j->ij", t, freq)
        self.cos = nn.Buffer(theta.cos(), persistent=False)
        self.sin = nn.Buffer(theta.sin(), persistent=False)
    def forward(self, x):
        cos, sin = self.cos[None, :x.size(-3), None, :], self.sin[None, :x.size(-3), None, :]
        x1, x2 = x.float().chunk(2, dim=-1)
        return torch.cat((x1 * cos + x2 * sin, -x1 * sin + x2 * cos), 3).type_as(x)

class CausalSelfAttention(nn.Module):
    def __init__(self, dim, num_heads, max_seq_len, head_dim=128):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.rotary = Rotary(head_dim, max_seq_len)
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=False)
        self.proj.weight.detach().zero_()
        self.attn_scale = 0.12
    def forward(self, x, ve, lambdas, block_mask):
        B, T = x.shape[:2]
        q, k, v = self.qkv(x).view(B, T, 3 * self.num_heads, self.head_dim).chunk(3, dim=-2)
        q, k = norm(q), norm(k)
        q, k = self.rotary(q), self.rotary(k)
        v = lambdas[0] * v + (lambdas[1] * ve.view_as(v) if ve is not None else 0)
        y = flex_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), block_mask=block_mask, scale=self.attn_scale).transpose(1, 2)
        return self.proj(y.contiguous().view(B, T, -1))

class MLP(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim, bias=False)
        self.c_proj = nn.Linear(4 * dim, dim, bias=False)
    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())

class Block(nn.Module):
    def __init__(self, dim, num_heads, max_seq_len, layer_idx):
        super().__init__()
        self.attn = CausalSelfAttention(dim, num_heads, max_seq_len) if layer_idx != 7 else None
        self.mlp = MLP(dim)
    def forward(self, x, ve, x0, lambdas, sa_lambdas, block_mask):
        x = lambdas[0] * x + lambdas[1] * x0
        if self.attn is not None:
            x = x + self.attn(x, ve, sa_lambdas, block_mask)
        return x + self.mlp(norm(x))

class GPT(nn.Module):
    def __init__(self, vocab_size, num_layers, num_heads, model_dim, max_seq_len):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, model_dim)
        self.value_embeds = nn.ModuleList([nn.Embedding(vocab_size, model_dim) for _ in range(3)])
        self.blocks = nn.ModuleList([Block(model_dim, num_heads, max_seq_len, i) for i in range(num_layers)])
        self.lm_head = nn.Linear(model_dim, vocab_size, bias=False)
        self.scalars = nn.Parameter(torch.cat([torch.ones(num_layers), *[torch.tensor([1.0, 0.0]) for _ in range(num_layers)], *[torch.tensor([0.5, 0.5]) for _ in range(num_layers)]]))
    def create_blockmasks(self, input_seq, sliding_window_num_blocks):
        docs = (input_seq == 50256).cumsum(0)
        def document_causal(b, h, q_idx, kv_idx):
            return (q_idx >= kv_idx) & (docs[q_idx] == docs[kv_idx]) & (q_idx - kv_idx < sliding_window_num_blocks * 128)
        return create_block_mask(document_causal, None, None, len(input_seq), len(input_seq))
    def forward(self, input_seq, target_seq, sliding_window_num_blocks):
        ve = [e(input_seq) for e in self.value_embeds]
        ve = [ve[0], ve[1], ve[2]] + [None] * (len(self.blocks) - 6) + [ve[0], ve[1], ve[2]]
        long_bm = self.create_blockmasks(input_seq, sliding_window_num_blocks)
        x = x0 = norm(self.embed(input_seq)[None])
        skips = []
        n = len(self.blocks) // 2
        L = len(self.blocks)
        skip_weights = self.scalars[:L]
        lambdas = self.scalars[L:3 * L].view(-1, 2)
        sa = self.scalars[3 * L:5 * L].view(-1, 2)
        for i in range(L):
            if i >= n: x = x + skip_weights[i - n] * skips.pop()
            x = self.blocks[i](x, ve[i], x0, lambdas[i], sa[i], long_bm)
            if i < n: skips.append(x)
        x = norm(x)
        logits = self.lm_head(x).float()
        logits = 30 * torch.sigmoid(logits / (7.5 * x.size(-1) ** 0.5))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), target_seq, reduction="sum" if self.training else "mean")

def distributed_data_generator(pattern, batch_size):
    files = sorted(glob.glob(pattern))
    for f in files:
        tokens, pos = torch.load(f), 0
        while pos + batch_size + 1 < len(tokens):
            buf = tokens[pos:pos + batch_size + 1]
            yield buf[:-1].cuda(), buf[1:].cuda()
            pos += batch_size

@dataclass
class Hyperparameters:
    train_files = "data/train*.bin"
    val_files = "data/val*.bin"
    val_tokens = 10485760
    train_seq_len = 48 * 1024
    val_seq_len = 4 * 64 * 1024
    num_iterations = 1770
    cooldown_frac = 0.4
    vocab_size = 50257
    val_loss_every = 125
args = Hyperparameters()

model = GPT(args.vocab_size, 12, 6, 768, max(args.train_seq_len, args.val_seq_len)).cuda()
hidden = [p for n, p in model.blocks.named_parameters() if p.ndim >= 2 and "embed" not in n]
embeds = [p for n, p in model.named_parameters() if "embed" in n]
scalars = [p for p in model.parameters() if p.ndim < 2]
head = [model.lm_head.weight]
adam_groups = [dict(params=head, lr=0.22), dict(params=embeds, lr=0.6), dict(params=scalars, lr=0.04)]
optimizer1 = torch.optim.Adam(adam_groups, betas=(0.8, 0.95), eps=1e-10, fused=True)
optimizer2 = Muon(hidden, lr=0.05, momentum=0.95)
optimizers = [optimizer1, optimizer2]
for opt in optimizers:
    for group in opt.param_groups:
        group["initial_lr"] = group["lr"]

def get_lr(step):
    x = step / args.num_iterations
    if x < 1 - args.cooldown_frac:
        return 1.0
    w = (1 - x) / args.cooldown_frac
    return w * 1.0 + (1 - w) * 0.1

def get_window_size_blocks(step):
    x = step / args.num_iterations
    window_size = 1728 * x
    return max(1, int(window_size // 128))

model = torch.compile(model, dynamic=False)
train_loader = distributed_data_generator(args.train_files, args.train_seq_len)
for step in range(args.num_iterations + 1):
    last_step = step == args.num_iterations
    if last_step or step % args.val_loss_every == 0:
        model.eval()
        val_steps = args.val_tokens // args.val_seq_len
        val_loader = distributed_data_generator(args.val_files, args.val_seq_len)
        val_loss = 0
        with torch.no_grad():
            for _ in range(val_steps):
                inputs, targets = next(val_loader)
                val_loss += model(inputs, targets, get_window_size_blocks(step))
        val_loss /= val_steps
        print(f"step:{step} val_loss:{val_loss:.4f}")
        model.train()
    if last_step:
        break
    inputs, targets = next(train_loader)
    model(inputs, targets, get_window_size_blocks(step)).backward()
    for opt in optimizers:
        for group in opt.param_groups:
            group["lr"] = group["initial_lr"] * get_lr(step)
    for group in optimizer2.param_groups:
        frac = min(step / 300, 1)
        group["momentum"] = (1 - frac) * 0.85 + frac * 0.95
    for opt in optimizers:
        opt.step()
    model.zero_grad(set_to_none=True)
