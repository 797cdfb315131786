"""A small GPT for a size-limited language-modelling contest: train, quantise, measure bits per byte."""
# ruff: noqa

import copy
import glob
import io
import lzma
import math
import os
import random
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP


class Hyperparameters:
    # data
    data_path = os.environ.get("DATA_PATH", "./data/fineweb")
    train_files = os.path.join(data_path, "train_*.bin")
    val_files = os.path.join(data_path, "val_*.bin")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tok_1024.model")
    run_id = os.environ.get("RUN_ID", str(uuid.uuid4()))
    seed = int(os.environ.get("SEED", 1337))
    # validation
    val_batch_tokens = int(os.environ.get("VAL_BATCH_TOKENS", 524_288))
    val_loss_every = int(os.environ.get("VAL_LOSS_EVERY", 1000))
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", 2048))
    eval_stride = int(os.environ.get("EVAL_STRIDE", 64))
    # length of training
    iterations = int(os.environ.get("ITERATIONS", 20_000))
    warmdown_frac = float(os.environ.get("WARMDOWN_FRAC", 0.72))
    warmup_steps = int(os.environ.get("WARMUP_STEPS", 20))
    train_batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 786_432))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 2048))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    train_log_every = int(os.environ.get("TRAIN_LOG_EVERY", 200))
    # model
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 11))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", 4))
    mlp_mult = float(os.environ.get("MLP_MULT", 4.0))
    rope_base = float(os.environ.get("ROPE_BASE", 10000.0))
    rope_dims = int(os.environ.get("ROPE_DIMS", 16))
    logit_softcap = float(os.environ.get("LOGIT_SOFTCAP", 30.0))
    qk_gain_init = float(os.environ.get("QK_GAIN_INIT", 5.25))
    tie_embeddings = bool(int(os.environ.get("TIE_EMBEDDINGS", "1")))
    xsa_last_n = int(os.environ.get("XSA_LAST_N", 11))
    num_loops = int(os.environ.get("NUM_LOOPS", 2))
    loop_start = int(os.environ.get("LOOP_START", 3))
    loop_end = int(os.environ.get("LOOP_END", 5))
    enable_looping_at = float(os.environ.get("ENABLE_LOOPING_AT", 0.35))
    parallel_residual_start = int(os.environ.get("PARALLEL_RESIDUAL_START", 7))
    ve_layers = os.environ.get("VE_LAYERS", "9,10")
    ve_dim = int(os.environ.get("VE_DIM", 128))
    bigram_vocab_size = int(os.environ.get("BIGRAM_VOCAB_SIZE", 2048))
    bigram_dim = int(os.environ.get("BIGRAM_DIM", 96))
    resid_dropout = float(os.environ.get("RESID_DROPOUT", 0.0))
    # objective
    z_loss_weight = float(os.environ.get("Z_LOSS_WEIGHT", 1e-4))
    # optimiser
    matrix_lr = float(os.environ.get("MATRIX_LR", 0.022))
    scalar_lr = float(os.environ.get("SCALAR_LR", 0.02))
    embed_lr = float(os.environ.get("EMBED_LR", 0.6))
    head_lr = float(os.environ.get("HEAD_LR", 0.008))
    min_lr = float(os.environ.get("MIN_LR", 0.0))
    muon_momentum = float(os.environ.get("MUON_MOMENTUM", 0.99))
    muon_backend_steps = int(os.environ.get("MUON_BACKEND_STEPS", 5))
    muon_momentum_warmup_start = float(os.environ.get("MUON_MOMENTUM_WARMUP_START", 0.92))
    muon_momentum_warmup_steps = int(os.environ.get("MUON_MOMENTUM_WARMUP_STEPS", 1500))
    beta1 = float(os.environ.get("BETA1", 0.9))
    beta2 = float(os.environ.get("BETA2", 0.95))
    adam_eps = float(os.environ.get("ADAM_EPS", 1e-8))
    grad_clip_norm = float(os.environ.get("GRAD_CLIP_NORM", 0.3))
    muon_wd = float(os.environ.get("MUON_WD", 0.095))
    adam_wd = float(os.environ.get("ADAM_WD", 0.02))
    embed_wd = float(os.environ.get("EMBED_WD", 0.085))
    ema_decay = float(os.environ.get("EMA_DECAY", 0.9965))
    # quantisation
    compressor = os.environ.get("COMPRESSOR", "lzma")
    matrix_bits = int(os.environ.get("MATRIX_BITS", 6))
    embed_bits = int(os.environ.get("EMBED_BITS", 8))
    matrix_clip_sigmas = float(os.environ.get("MATRIX_CLIP_SIGMAS", 12.85))
    gptq_calibration_batches = int(os.environ.get("GPTQ_CALIBRATION_BATCHES", 64))
    gptq_block_size = int(os.environ.get("GPTQ_BLOCK_SIZE", 128))
    gptq_damp = float(os.environ.get("GPTQ_DAMP", 0.01))
    late_qat_threshold = float(os.environ.get("LATE_QAT_THRESHOLD", 0.15))
    # test-time training
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "1")))
    ttt_lr = float(os.environ.get("TTT_LR", 0.005))
    ttt_epochs = int(os.environ.get("TTT_EPOCHS", 3))
    ttt_chunk_tokens = int(os.environ.get("TTT_CHUNK_TOKENS", 32_768))
    ttt_momentum = float(os.environ.get("TTT_MOMENTUM", 0.9))
    ttt_freeze_numel = int(os.environ.get("TTT_FREEZE_NUMEL", 10_000))
    # machine
    compile_model = bool(int(os.environ.get("COMPILE_MODEL", "1")))
    empty_cache_every = int(os.environ.get("EMPTY_CACHE_EVERY", 0))


CONTROL_TENSOR_NAME_PATTERNS = (
    "attn_scale",
    "mlp_scale",
    "resid_mix",
    "q_gain",
    "skip_weight",
    "skip_gate",
    "ve_scale",
)
PASSTHROUGH_NUMEL = 65_536
SHARD_MAGIC = 20240520
SHARD_HEADER_INTS = 256


# -----------------------------------------------------------------------------
# Machine: processes, logging, seeds
# -----------------------------------------------------------------------------


@dataclass
class World:
    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def setup_distributed() -> World:
    rank = int(os.environ.get("RANK", 0))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group(backend="nccl", device_id=device)
        dist.barrier()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    return World(rank, local_rank, size, device)


def set_seeds(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


class Logger:
    def __init__(self, run_id: str, is_main: bool) -> None:
        self.is_main = is_main
        self.path = Path("logs") / f"{run_id}.txt"
        if is_main:
            self.path.parent.mkdir(exist_ok=True)

    def log0(self, message: str, console: bool = True) -> None:
        if not self.is_main:
            return
        if console:
            print(message, flush=True)
        with open(self.path, "a") as sink:
            print(message, file=sink)


# -----------------------------------------------------------------------------
# Optimiser
# -----------------------------------------------------------------------------


def zeropower_via_newtonschulz5(grad: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Orthogonalise a matrix by a quintic iteration in bfloat16."""
    a, b, c = (3.4445, -4.7750, 2.0315)
    x = grad.bfloat16()
    x /= x.norm() + eps
    transposed = grad.size(0) > grad.size(1)
    if transposed:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        poly = b * gram + c * gram @ gram
        x = a * x + poly @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; the matrices of the model are shared out over the ranks."""

    def __init__(
        self,
        params,
        lr: float,
        momentum: float,
        backend_steps: int,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        row_normalize: bool = False,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                backend_steps=backend_steps,
                nesterov=nesterov,
                weight_decay=weight_decay,
                row_normalize=row_normalize,
            ),
        )

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        distributed = dist.is_available() and dist.is_initialized()
        world_size = dist.get_world_size() if distributed else 1
        rank = dist.get_rank() if distributed else 0
        for group in self.param_groups:
            params = group["params"]
            if not params:
                continue
            lr = group["lr"]
            momentum = group["momentum"]
            total = sum(p.numel() for p in params)
            flat = torch.zeros(total, device=params[0].device, dtype=torch.bfloat16)
            cursor = 0
            for i, p in enumerate(params):
                if i % world_size == rank and p.grad is not None:
                    g = p.grad
                    state = self.state[p]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(g)
                    buf = state["momentum_buffer"]
                    buf.mul_(momentum).add_(g)
                    if group["nesterov"]:
                        g = g.add(buf, alpha=momentum)
                    if group["row_normalize"]:
                        g = g / g.norm(dim=-1, keepdim=True).clamp_min(1e-7)
                    g = zeropower_via_newtonschulz5(g, steps=group["backend_steps"])
                    g *= max(1, g.size(0) / g.size(1)) ** 0.5
                    flat[cursor : cursor + p.numel()] = g.reshape(-1)
                cursor += p.numel()
            if distributed:
                dist.all_reduce(flat, op=dist.ReduceOp.SUM)
            cursor = 0
            decay = group["weight_decay"]
            for p in params:
                if decay > 0.0:
                    p.data.mul_(1.0 - lr * decay)
                g = flat[cursor : cursor + p.numel()].view_as(p).to(dtype=p.dtype)
                p.add_(g, alpha=-lr)
                cursor += p.numel()
        return loss


class WeightAverage:
    """Exponential moving average of all floating-point weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: t.detach().float().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, t in model.state_dict().items():
            self.shadow[name].mul_(self.decay).add_(t.detach().float(), alpha=1.0 - self.decay)

    def apply_to(self, model: nn.Module) -> None:
        current = model.state_dict()
        model.load_state_dict({name: t.to(current[name].dtype) for name, t in self.shadow.items()})


class Optimizers:
    """Muon for the matrices in the blocks, AdamW for embeddings, head and control tensors."""

    def __init__(self, h: Hyperparameters, model: "GPT") -> None:
        block_params = list(model.blocks.named_parameters())
        matrix_params = [
            p
            for name, p in block_params
            if p.ndim == 2 and not any(pattern in name for pattern in CONTROL_TENSOR_NAME_PATTERNS)
        ]
        scalar_params = [
            p
            for name, p in block_params
            if p.ndim < 2 or any(pattern in name for pattern in CONTROL_TENSOR_NAME_PATTERNS)
        ]
        if model.skip_weights.numel() > 0:
            scalar_params.append(model.skip_weights)
            scalar_params.append(model.skip_gates)
        if model.bigram is not None:
            scalar_params.append(model.bigram.scale)
            matrix_params.append(model.bigram.proj.weight)
        if model.ve is not None:
            scalar_params.append(model.ve_scales)
            matrix_params.append(model.ve.proj.weight)
        embed_params = [model.tok_emb.weight]
        if model.bigram is not None:
            embed_params.append(model.bigram.embed.weight)
        if model.ve is not None:
            embed_params.append(model.ve.embed.weight)
        self.embed = torch.optim.AdamW(
            [{"params": embed_params, "lr": h.embed_lr, "base_lr": h.embed_lr}],
            betas=(h.beta1, h.beta2),
            eps=h.adam_eps,
            weight_decay=h.embed_wd,
            fused=True,
        )
        self.muon = Muon(
            matrix_params,
            lr=h.matrix_lr,
            momentum=h.muon_momentum,
            backend_steps=h.muon_backend_steps,
            weight_decay=h.muon_wd,
        )
        for group in self.muon.param_groups:
            group["base_lr"] = h.matrix_lr
        self.scalar = torch.optim.AdamW(
            [{"params": scalar_params, "lr": h.scalar_lr, "base_lr": h.scalar_lr}],
            betas=(h.beta1, h.beta2),
            eps=h.adam_eps,
            weight_decay=h.adam_wd,
            fused=True,
        )
        self.all = [self.embed, self.muon, self.scalar]
        if model.lm_head is not None:
            self.head = torch.optim.Adam(
                [{"params": [model.lm_head.weight], "lr": h.head_lr, "base_lr": h.head_lr}],
                betas=(h.beta1, h.beta2),
                eps=h.adam_eps,
                fused=True,
            )
            self.all.append(self.head)

    def set_lr(self, scale: float) -> None:
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * scale

    def step(self) -> None:
        for optimizer in self.all:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)


# -----------------------------------------------------------------------------
# Tokenizer bytes and data
# -----------------------------------------------------------------------------


class TokenBytes:
    """How many bytes of text each token stands for."""

    def __init__(self, path: str, vocab_size: int, device: torch.device) -> None:
        sp = spm.SentencePieceProcessor(model_file=path)
        base = np.zeros(vocab_size, dtype=np.int16)
        leading = np.zeros(vocab_size, dtype=np.bool_)
        boundary = np.ones(vocab_size, dtype=np.bool_)
        for token in range(min(sp.vocab_size(), vocab_size)):
            if sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token):
                continue
            boundary[token] = False
            if sp.is_byte(token):
                base[token] = 1
                continue
            piece = sp.id_to_piece(token)
            if piece.startswith("\u2581"):
                leading[token] = True
                piece = piece[1:]
            base[token] = len(piece.encode("utf-8"))
        self.base = torch.tensor(base, device=device)
        self.leading = torch.tensor(leading, device=device)
        self.boundary = torch.tensor(boundary, device=device)

    def count(self, previous: Tensor, current: Tensor) -> Tensor:
        count = self.base[current].to(torch.int32)
        return count + (self.leading[current] & ~self.boundary[previous]).to(torch.int32)


def load_data_shard(file: Path) -> Tensor:
    header = np.fromfile(file, dtype="<i4", count=SHARD_HEADER_INTS)
    if header.size != SHARD_HEADER_INTS or int(header[0]) != SHARD_MAGIC:
        raise ValueError(f"unexpected shard header in {file}")
    count = int(header[2])
    offset = SHARD_HEADER_INTS * np.dtype("<i4").itemsize
    tokens = np.fromfile(file, dtype="<u2", count=count, offset=offset)
    return torch.from_numpy(tokens.astype(np.uint16, copy=False))


def load_validation_tokens(pattern: str, seq_len: int) -> Tensor:
    files = [Path(p) for p in sorted(glob.glob(pattern))]
    tokens = torch.cat([load_data_shard(file) for file in files]).contiguous()
    usable = (tokens.numel() - 1) // seq_len * seq_len
    return tokens[: usable + 1]


class TokenStream:
    """Reads shards in order, over and over."""

    def __init__(self, pattern: str) -> None:
        self.files = [Path(p) for p in sorted(glob.glob(pattern))]
        if not self.files:
            raise FileNotFoundError(pattern)
        self.index = 0
        self.tokens = load_data_shard(self.files[0])
        self.position = 0

    def advance_file(self) -> None:
        self.index = (self.index + 1) % len(self.files)
        self.tokens = load_data_shard(self.files[self.index])
        self.position = 0

    def take(self, count: int) -> Tensor:
        chunks = []
        remaining = count
        while remaining > 0:
            available = self.tokens.numel() - self.position
            if available <= 0:
                self.advance_file()
                continue
            k = min(remaining, available)
            chunks.append(self.tokens[self.position : self.position + k])
            self.position += k
            remaining -= k
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


class DistributedTokenLoader:
    """Gives each rank its own slice of the stream."""

    def __init__(self, pattern: str, world: World) -> None:
        self.world = world
        self.stream = TokenStream(pattern)

    def next_batch(self, global_tokens: int, seq_len: int, accum_steps: int) -> tuple[Tensor, Tensor]:
        local = global_tokens // (self.world.size * accum_steps)
        span = local + 1
        chunk = self.stream.take(span * self.world.size)
        start = self.world.rank * span
        window = chunk[start : start + span].to(dtype=torch.int64)
        x = window[:-1].reshape(-1, seq_len)
        y = window[1:].reshape(-1, seq_len)
        return x.to(self.world.device, non_blocking=True), y.to(self.world.device, non_blocking=True)


# -----------------------------------------------------------------------------
# Model
# -----------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, eps: float | None = None) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), eps=self.eps)


class CastedLinear(nn.Linear):
    """Keeps weights in float32, computes in the input's type; imitates rounding late in training."""

    qat_enabled = False

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.to(x.dtype)
        if CastedLinear.qat_enabled and self.training and w.ndim == 2:
            w = fake_quantize(w, bits=6)
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        return F.linear(x, w, bias)


def fake_quantize(w: Tensor, bits: int) -> Tensor:
    """Rounded weights forward, straight-through gradients backward."""
    top = 2 ** (bits - 1) - 1
    with torch.no_grad():
        scale = w.float().abs().amax(dim=1).clamp_min(1e-8) / top
        rounded = (w.float() / scale[:, None]).round().clamp(-top, top) * scale[:, None]
    return w + (rounded.to(w.dtype) - w).detach()


class Rotary(nn.Module):
    """Cosines and sines of the rotation, for the first `rope_dims` of a head."""

    def __init__(self, head_dim: int, base: float, train_seq_len: int, rope_dims: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.base = base
        self.train_seq_len = train_seq_len
        self.rope_dims = rope_dims if rope_dims > 0 else head_dim
        inv_freq = 1.0 / (base ** (torch.arange(0, self.rope_dims, 2, dtype=torch.float32) / self.rope_dims))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self._cached_len = 0
        self._cos: Tensor | None = None
        self._sin: Tensor | None = None

    def forward(self, seq_len: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self._cos is None or self._cached_len != seq_len or self._cos.device != device:
            inv_freq = self.inv_freq.to(device)
            if seq_len > self.train_seq_len:
                stretch = seq_len / self.train_seq_len
                base = self.base * stretch ** (self.rope_dims / (self.rope_dims - 2))
                exponent = torch.arange(0, self.rope_dims, 2, dtype=torch.float32, device=device)
                inv_freq = 1.0 / (base ** (exponent / self.rope_dims))
            t = torch.arange(seq_len, device=device, dtype=inv_freq.dtype)
            freqs = torch.outer(t, inv_freq)
            self._cos = freqs.cos()[None, :, None, :]
            self._sin = freqs.sin()[None, :, None, :]
            self._cached_len = seq_len
        return self._cos.to(dtype=dtype), self._sin.to(dtype=dtype)


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor, rope_dims: int) -> Tensor:
    rotated, plain = x[..., :rope_dims], x[..., rope_dims:]
    half = rope_dims // 2
    x1, x2 = rotated[..., :half], rotated[..., half:]
    turned = torch.cat((x1 * cos + x2 * sin, x1 * (-sin) + x2 * cos), dim=-1)
    return torch.cat((turned, plain), dim=-1)


class CausalSelfAttention(nn.Module):
    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        rope_base: float,
        qk_gain_init: float,
        train_seq_len: int,
        rope_dims: int,
    ) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError("model_dim must be divisible by num_heads")
        if num_heads % num_kv_heads != 0:
            raise ValueError("num_heads must be divisible by num_kv_heads")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = dim // num_heads
        kv_dim = num_kv_heads * self.head_dim
        self.c_q = CastedLinear(dim, dim, bias=False)
        self.c_k = CastedLinear(dim, kv_dim, bias=False)
        self.c_v = CastedLinear(dim, kv_dim, bias=False)
        self.proj = CastedLinear(dim, dim, bias=False)
        self.proj._zero_init = True
        self.q_gain = nn.Parameter(torch.full((num_heads,), qk_gain_init, dtype=torch.float32))
        self.rope_dims = rope_dims
        self.rotary = Rotary(self.head_dim, rope_base, train_seq_len, rope_dims)
        self.use_xsa = False

    def _subtract_own_value(self, y: Tensor, v: Tensor) -> Tensor:
        """Take the part along each position's own value out of the attention output."""
        batch, length, heads, dim = y.shape
        groups = heads // v.size(-2)
        grouped = y.reshape(batch, length, v.size(-2), groups, dim)
        direction = F.normalize(v, dim=-1).unsqueeze(-2)
        along = (grouped * direction).sum(dim=-1, keepdim=True) * direction
        return (grouped - along).reshape(batch, length, heads, dim)

    def forward(self, x: Tensor, v_embed: Tensor | None = None) -> Tensor:
        batch, length, dim = x.shape
        q = self.c_q(x).reshape(batch, length, self.num_heads, self.head_dim)
        k = self.c_k(x).reshape(batch, length, self.num_kv_heads, self.head_dim)
        v = self.c_v(x)
        if v_embed is not None:
            v = v + v_embed
        v = v.reshape(batch, length, self.num_kv_heads, self.head_dim)
        q = F.rms_norm(q, (q.size(-1),))
        k = F.rms_norm(k, (k.size(-1),))
        cos, sin = self.rotary(length, x.device, q.dtype)
        q = apply_rotary_emb(q, cos, sin, self.rope_dims)
        k = apply_rotary_emb(k, cos, sin, self.rope_dims)
        q = q * self.q_gain.to(dtype=q.dtype)[None, None, :, None]
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            enable_gqa=self.num_kv_heads != self.num_heads,
        ).transpose(1, 2)
        if self.use_xsa:
            y = self._subtract_own_value(y, v)
        y = y.reshape(batch, length, dim)
        return self.proj(y)


class MLP(nn.Module):
    def __init__(self, dim: int, mlp_mult: float) -> None:
        super().__init__()
        hidden = int(mlp_mult * dim)
        self.fc = CastedLinear(dim, hidden, bias=False)
        self.proj = CastedLinear(hidden, dim, bias=False)
        self.proj._zero_init = True

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.silu(self.fc(x)).square())


class BigramHash(nn.Module):
    """Embeds a hash of the previous and the current token."""

    def __init__(self, vocab_size: int, dim: int, model_dim: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embed = nn.Embedding(vocab_size, dim)
        nn.init.zeros_(self.embed.weight)
        self.proj = CastedLinear(dim, model_dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.05, dtype=torch.float32))

    def forward(self, ids: Tensor) -> Tensor:
        t = ids.to(torch.int32)
        top = self.vocab_size - 1
        hashed = torch.empty_like(t)
        hashed[..., 0] = top
        hashed[..., 1:] = torch.bitwise_xor(36313 * t[..., 1:], 27191 * t[..., :-1]) % top
        h = self.proj(self.embed(hashed.long()))
        return h * self.scale.to(dtype=h.dtype)


class ValueEmbedding(nn.Module):
    """A second token embedding, added to the values of late layers."""

    def __init__(self, vocab_size: int, ve_dim: int, kv_dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, ve_dim)
        nn.init.normal_(self.embed.weight, std=0.01)
        self.proj = CastedLinear(ve_dim, kv_dim, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.proj(self.embed(ids))


class Block(nn.Module):
    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        mlp_mult: float,
        rope_base: float,
        qk_gain_init: float,
        train_seq_len: int,
        rope_dims: int,
        layer_index: int,
        parallel: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attn_norm = RMSNorm()
        self.mlp_norm = RMSNorm()
        self.attn = CausalSelfAttention(dim, num_heads, num_kv_heads, rope_base, qk_gain_init, train_seq_len, rope_dims)
        self.mlp = MLP(dim, mlp_mult)
        self.attn_scale = nn.Parameter(torch.ones(dim, dtype=torch.float32))
        self.mlp_scale = nn.Parameter(torch.ones(dim, dtype=torch.float32))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(dim), torch.zeros(dim))).float())
        self.ln_scale = 1.0 / math.sqrt(layer_index + 1)
        self.parallel = parallel
        self.dropout = dropout

    def forward(self, x: Tensor, x0: Tensor, v_embed: Tensor | None = None) -> Tensor:
        mix = self.resid_mix.to(dtype=x.dtype)
        x_in = mix[0][None, None, :] * x + mix[1][None, None, :] * x0
        attn_out = self.attn(self.attn_norm(x_in) * self.ln_scale, v_embed=v_embed)
        attn_out = self.attn_scale.to(dtype=x.dtype)[None, None, :] * attn_out
        if self.parallel:
            mlp_out = self.mlp(self.mlp_norm(x_in) * self.ln_scale)
            mlp_out = self.mlp_scale.to(dtype=x.dtype)[None, None, :] * mlp_out
            return x_in + attn_out + mlp_out
        x_out = x_in + attn_out
        mlp_out = self.mlp(self.mlp_norm(x_out) * self.ln_scale)
        mlp_out = self.mlp_scale.to(dtype=x.dtype)[None, None, :] * mlp_out
        if self.dropout > 0.0:
            mlp_out = F.dropout(mlp_out, p=self.dropout, training=self.training)
        return x_out + mlp_out


class GPT(nn.Module):
    """Encoder and decoder halves with skips between them, and a segment in the middle that is run several times."""

    def __init__(self, h: Hyperparameters) -> None:
        super().__init__()
        self.tie_embeddings = h.tie_embeddings
        self.logit_softcap = h.logit_softcap
        self.z_loss_weight = h.z_loss_weight
        self.tok_emb = nn.Embedding(h.vocab_size, h.model_dim)
        self.bigram = BigramHash(h.bigram_vocab_size, h.bigram_dim, h.model_dim) if h.bigram_vocab_size > 0 else None
        self.blocks = nn.ModuleList(
            [
                Block(
                    h.model_dim,
                    h.num_heads,
                    h.num_kv_heads,
                    h.mlp_mult,
                    h.rope_base,
                    h.qk_gain_init,
                    h.train_seq_len,
                    h.rope_dims,
                    layer_index=i,
                    parallel=i >= h.parallel_residual_start,
                    dropout=h.resid_dropout,
                )
                for i in range(h.num_layers)
            ]
        )
        for i in range(max(0, h.num_layers - h.xsa_last_n), h.num_layers):
            self.blocks[i].attn.use_xsa = True
        self.ve_layers = [int(i) for i in h.ve_layers.split(",") if i]
        kv_dim = h.num_kv_heads * (h.model_dim // h.num_heads)
        self.ve = ValueEmbedding(h.vocab_size, h.ve_dim, kv_dim) if self.ve_layers else None
        self.ve_scales = nn.Parameter(torch.ones(len(self.ve_layers), dtype=torch.float32))
        self.looping_active = False
        plain = list(range(h.num_layers))
        segment = list(range(h.loop_start, h.loop_end + 1))
        looped = plain[: h.loop_start] + segment * (h.num_loops + 1) + plain[h.loop_end + 1 :]
        self.plain_encoder = plain[: len(plain) // 2]
        self.plain_decoder = plain[len(plain) // 2 :]
        self.loop_encoder = looped[: len(looped) // 2]
        self.loop_decoder = looped[len(looped) // 2 :]
        num_skips = min(len(self.loop_encoder), len(self.loop_decoder))
        self.skip_weights = nn.Parameter(torch.ones(num_skips, h.model_dim, dtype=torch.float32))
        self.skip_gates = nn.Parameter(torch.zeros(num_skips, h.model_dim, dtype=torch.float32))
        self.final_norm = RMSNorm()
        self.lm_head = None if h.tie_embeddings else CastedLinear(h.model_dim, h.vocab_size, bias=False)
        if self.lm_head is not None:
            self.lm_head._zero_init = True
        self._init_weights()

    def _init_weights(self) -> None:
        if self.tie_embeddings:
            nn.init.normal_(self.tok_emb.weight, mean=0.0, std=0.005)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if getattr(module, "_zero_init", False):
                    nn.init.zeros_(module.weight)
                elif module.weight.ndim == 2 and min(module.weight.shape) >= 64:
                    nn.init.orthogonal_(module.weight, gain=1.0)

    def _value_embedding(self, layer: int, ve: Tensor | None) -> Tensor | None:
        if ve is None or layer not in self.ve_layers:
            return None
        scale = self.ve_scales[self.ve_layers.index(layer)]
        return ve * scale.to(dtype=ve.dtype)

    def forward_logits(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids)
        if self.bigram is not None:
            x = x + self.bigram(ids)
        x = F.rms_norm(x, (x.size(-1),))
        x0 = x
        ve = self.ve(ids) if self.ve is not None else None
        encoder = self.loop_encoder if self.looping_active else self.plain_encoder
        decoder = self.loop_decoder if self.looping_active else self.plain_decoder
        skips: list[Tensor] = []
        for i in encoder:
            x = self.blocks[i](x, x0, v_embed=self._value_embedding(i, ve))
            skips.append(x)
        for j, i in enumerate(decoder):
            if skips and j < self.skip_weights.size(0):
                skip = self.skip_weights[j].to(dtype=x.dtype)[None, None, :] * skips.pop()
                gate = torch.sigmoid(self.skip_gates[j].to(dtype=x.dtype))[None, None, :]
                x = torch.lerp(skip, x, gate)
            x = self.blocks[i](x, x0, v_embed=self._value_embedding(i, ve))
        x = self.final_norm(x)
        if self.lm_head is None:
            logits = F.linear(x, self.tok_emb.weight.to(x.dtype))
        else:
            logits = self.lm_head(x)
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        logits = self.forward_logits(ids).float()
        flat = logits.reshape(-1, logits.size(-1))
        loss = F.cross_entropy(flat, targets.reshape(-1), reduction="mean")
        if self.training and self.z_loss_weight > 0.0:
            z = torch.logsumexp(flat, dim=-1)
            loss = loss + self.z_loss_weight * z.square().mean()
        return loss


def restore_low_dim_params_to_fp32(module: nn.Module) -> None:
    with torch.no_grad():
        for name, p in module.named_parameters():
            control = any(pattern in name for pattern in CONTROL_TENSOR_NAME_PATTERNS)
            if (p.ndim < 2 or control) and p.dtype != torch.float32:
                p.data = p.data.float()


# -----------------------------------------------------------------------------
# Quantisation of the artifact
# -----------------------------------------------------------------------------


def is_passthrough(name: str, t: Tensor) -> bool:
    if not t.is_floating_point() or t.numel() <= PASSTHROUGH_NUMEL:
        return True
    return any(pattern in name for pattern in CONTROL_TENSOR_NAME_PATTERNS)


def collect_hessians(model: GPT, loader: DistributedTokenLoader, h: Hyperparameters) -> dict[str, Tensor]:
    """Second moments of the inputs of every linear layer, over calibration batches."""
    hessians: dict[str, Tensor] = {}
    hooks = []

    def watch(name: str):
        def hook(module, inputs, output):
            x = inputs[0].detach().float()
            x = x.reshape(-1, x.shape[-1])
            if name not in hessians:
                hessians[name] = torch.zeros(x.shape[1], x.shape[1], device=x.device)
            hessians[name].addmm_(x.T, x)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, CastedLinear) and module.weight.numel() > PASSTHROUGH_NUMEL:
            hooks.append(module.register_forward_hook(watch(name + ".weight")))
    model.eval()
    with torch.inference_mode():
        for _ in range(h.gptq_calibration_batches):
            x, _ = loader.next_batch(h.train_batch_tokens, h.train_seq_len, 8)
            model.forward_logits(x)
    for hook in hooks:
        hook.remove()
    return {name: hessian / h.gptq_calibration_batches for name, hessian in hessians.items()}


def gptq_quantize_weight(
    w: Tensor, hessian: Tensor, clip_sigmas: float, top: int, block_size: int, damp: float
) -> tuple[Tensor, Tensor]:
    """Round column by column and spread each error over the columns that are left."""
    original = w.float()
    rows, cols = original.shape
    hess = hessian.float().clone()
    dead = torch.diag(hess) == 0
    hess[dead, dead] = 1
    hess.diagonal().add_(damp * hess.diag().mean())
    order = torch.argsort(hess.diag(), descending=True)
    restore = torch.argsort(order)
    work = original[:, order].clone()
    work[:, dead[order]] = 0
    hess = hess[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hess))
    inverse = torch.linalg.cholesky(inverse, upper=True)
    scale = (clip_sigmas * original.std(dim=1) / top).clamp_min(1e-10).to(torch.float16)
    fine = scale.float()
    q = torch.zeros(rows, cols, dtype=torch.int8)
    for start in range(0, cols, block_size):
        stop = min(start + block_size, cols)
        block = work[:, start:stop].clone()
        block_inverse = inverse[start:stop, start:stop]
        errors = torch.zeros(rows, stop - start)
        for j in range(stop - start):
            column = block[:, j]
            rounded = torch.clamp(torch.round(column / fine), -top, top)
            q[:, start + j] = rounded.to(torch.int8)
            error = (column - rounded.float() * fine) / block_inverse[j, j]
            errors[:, j] = error
            block[:, j:] -= error.unsqueeze(1) * block_inverse[j, j:].unsqueeze(0)
        if stop < cols:
            work[:, stop:] -= errors @ inverse[start:stop, stop:]
    return q[:, restore], scale


def quantize_rows(t: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Plain rounding with one scale a row."""
    f = t.float()
    scale = (f.abs().amax(dim=1) / top).clamp_min(1e-8).to(torch.float16)
    q = torch.clamp(torch.round(f / scale.float()[:, None]), -top, top).to(torch.int8)
    return q, scale


def quantize_state_dict(state: dict[str, Tensor], hessians: dict[str, Tensor], h: Hyperparameters):
    result: dict[str, Tensor] = {}
    meta: dict[str, str] = {}
    for name, tensor in state.items():
        t = tensor.detach().cpu().contiguous()
        if is_passthrough(name, t):
            result[name] = t.to(torch.float16) if t.is_floating_point() else t
            meta[name] = "passthrough"
            continue
        if name in hessians:
            top = 2 ** (h.matrix_bits - 1) - 1
            q, scale = gptq_quantize_weight(
                t, hessians[name].cpu(), h.matrix_clip_sigmas, top, h.gptq_block_size, h.gptq_damp
            )
            meta[name] = f"gptq{h.matrix_bits}"
        else:
            q, scale = quantize_rows(t, 2 ** (h.embed_bits - 1) - 1)
            meta[name] = f"rows{h.embed_bits}"
        result[name + ".q"] = q
        result[name + ".scale"] = scale
    return result, meta


def dequantize_state_dict(result, meta, template: dict[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, original in template.items():
        if meta[name] == "passthrough":
            state[name] = result[name].to(original.dtype)
            continue
        q, scale = result[name + ".q"], result[name + ".scale"]
        state[name] = (q.float() * scale.float()[:, None]).to(original.dtype)
    return state


def shuffle_bytes(data: bytes, stride: int = 2) -> bytes:
    """Bytes of equal significance next to each other compress better."""
    source = np.frombuffer(data, dtype=np.uint8)
    return b"".join(source[k::stride].tobytes() for k in range(stride))


def unshuffle_bytes(data: bytes, stride: int = 2) -> bytes:
    source = np.frombuffer(data, dtype=np.uint8)
    result = np.empty_like(source)
    cursor = 0
    for k in range(stride):
        count = len(range(k, len(source), stride))
        result[k::stride] = source[cursor : cursor + count]
        cursor += count
    return result.tobytes()


def compress_artifact(data: bytes, compressor: str) -> bytes:
    data = shuffle_bytes(data)
    if compressor == "lzma":
        return lzma.compress(data, preset=9)
    raise ValueError(compressor)


def decompress_artifact(blob: bytes, compressor: str) -> bytes:
    if compressor == "lzma":
        return unshuffle_bytes(lzma.decompress(blob))
    raise ValueError(compressor)


def serialize(h: Hyperparameters, model: GPT, loader: DistributedTokenLoader, logger: Logger) -> int:
    hessians = collect_hessians(model, loader, h)
    result, meta = quantize_state_dict(model.state_dict(), hessians, h)
    buffer = io.BytesIO()
    torch.save({"w": result, "m": meta}, buffer)
    blob = compress_artifact(buffer.getvalue(), h.compressor)
    code_bytes = len(Path(__file__).read_bytes())
    if logger.is_main:
        Path("final_model.ptz").write_bytes(blob)
    logger.log0(f"artifact: {len(blob)} bytes of weights and {code_bytes} bytes of code")
    return len(blob) + code_bytes


def deserialize(h: Hyperparameters, device: torch.device) -> GPT:
    model = GPT(h).to(device).bfloat16()
    restore_low_dim_params_to_fp32(model)
    data = decompress_artifact(Path("final_model.ptz").read_bytes(), h.compressor)
    saved = torch.load(io.BytesIO(data), map_location="cpu")
    model.load_state_dict(dequantize_state_dict(saved["w"], saved["m"], model.state_dict()))
    model.looping_active = h.num_loops > 0
    return model


# -----------------------------------------------------------------------------
# Evaluation
# -----------------------------------------------------------------------------


def bits_per_byte(loss_sum: Tensor, token_count: Tensor, byte_count: Tensor) -> tuple[float, float]:
    loss = (loss_sum / token_count).item()
    return loss, loss / math.log(2.0) * (token_count.item() / byte_count.item())


def reduce_sums(*sums: Tensor) -> None:
    if dist.is_available() and dist.is_initialized():
        for t in sums:
            dist.all_reduce(t, op=dist.ReduceOp.SUM)


def eval_val(h: Hyperparameters, world: World, model: nn.Module, tokens: Tensor, sizes: TokenBytes):
    """Loss and bits per byte over non-overlapping windows."""
    seq_len = h.eval_seq_len
    batch_seqs = max(1, h.val_batch_tokens // (seq_len * world.size))
    total = (tokens.numel() - 1) // seq_len
    first, last = total * world.rank // world.size, total * (world.rank + 1) // world.size
    loss_sum = torch.zeros((), device=world.device, dtype=torch.float64)
    token_count = torch.zeros((), device=world.device, dtype=torch.float64)
    byte_count = torch.zeros((), device=world.device, dtype=torch.float64)
    model.eval()
    with torch.inference_mode():
        for start in range(first, last, batch_seqs):
            stop = min(start + batch_seqs, last)
            window = tokens[start * seq_len : stop * seq_len + 1].to(world.device, dtype=torch.int64)
            x, y = window[:-1].reshape(-1, seq_len), window[1:].reshape(-1, seq_len)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                batch_loss = model(x, y).detach()
            count = float(y.numel())
            loss_sum += batch_loss.to(torch.float64) * count
            token_count += count
            byte_count += sizes.count(x.reshape(-1), y.reshape(-1)).to(torch.float64).sum()
    reduce_sums(loss_sum, token_count, byte_count)
    model.train()
    return bits_per_byte(loss_sum, token_count, byte_count)


def eval_val_sliding(h: Hyperparameters, world: World, model: GPT, tokens: Tensor, sizes: TokenBytes, batch_seqs=32):
    """Every token is scored once, with at least eval_seq_len - eval_stride tokens before it."""
    seq_len, stride = h.eval_seq_len, h.eval_stride
    total = tokens.numel() - 1
    starts = [s for s in range(0, total, stride) if min(s + seq_len, total) - s >= stride or s == 0]
    mine = starts[world.rank :: world.size]
    loss_sum = torch.zeros((), device=world.device, dtype=torch.float64)
    token_count = torch.zeros((), device=world.device, dtype=torch.float64)
    byte_count = torch.zeros((), device=world.device, dtype=torch.float64)
    model.eval()
    with torch.inference_mode():
        for at in range(0, len(mine), batch_seqs):
            batch = mine[at : at + batch_seqs]
            x = torch.zeros(len(batch), seq_len, dtype=torch.int64, device=world.device)
            y = torch.zeros(len(batch), seq_len, dtype=torch.int64, device=world.device)
            lengths = []
            for i, s in enumerate(batch):
                stop = min(s + seq_len, total)
                chunk = tokens[s : stop + 1].to(world.device, dtype=torch.int64)
                x[i, : stop - s], y[i, : stop - s] = chunk[:-1], chunk[1:]
                lengths.append(stop - s)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                logits = model.forward_logits(x)
            nll = F.cross_entropy(logits.float().transpose(1, 2), y, reduction="none")
            for i, s in enumerate(batch):
                skip = 0 if s == 0 else max(lengths[i] - stride, 0)
                scored = nll[i, skip : lengths[i]].to(torch.float64)
                loss_sum += scored.sum()
                token_count += float(lengths[i] - skip)
                prev, cur = x[i, skip : lengths[i]], y[i, skip : lengths[i]]
                byte_count += sizes.count(prev, cur).to(torch.float64).sum()
    reduce_sums(loss_sum, token_count, byte_count)
    return bits_per_byte(loss_sum, token_count, byte_count)


def eval_val_ttt(h: Hyperparameters, world: World, model: GPT, tokens: Tensor, sizes: TokenBytes):
    """Score a chunk, then train on it: no token is seen before it is scored."""
    seq_len = h.eval_seq_len
    chunk = h.ttt_chunk_tokens
    total = tokens.numel() - 1
    trainable = [p for p in model.parameters() if p.numel() >= h.ttt_freeze_numel]
    optimizer = torch.optim.SGD(trainable, lr=h.ttt_lr, momentum=h.ttt_momentum)
    loss_sum = torch.zeros((), device=world.device, dtype=torch.float64)
    token_count = torch.zeros((), device=world.device, dtype=torch.float64)
    byte_count = torch.zeros((), device=world.device, dtype=torch.float64)
    num_chunks = (total + chunk - 1) // chunk
    for index in range(num_chunks):
        start, stop = index * chunk, min((index + 1) * chunk, total)
        usable = (stop - start) // seq_len * seq_len
        if usable == 0:
            continue
        window = tokens[start : start + usable + 1].to(world.device, dtype=torch.int64)
        x, y = window[:-1].reshape(-1, seq_len), window[1:].reshape(-1, seq_len)
        model.eval()
        with torch.no_grad(), torch.autocast(device_type="cuda", dtype=torch.bfloat16):
            nll = F.cross_entropy(model.forward_logits(x).float().transpose(1, 2), y, reduction="none")
        loss_sum += nll.to(torch.float64).sum()
        token_count += float(y.numel())
        byte_count += sizes.count(x.reshape(-1), y.reshape(-1)).to(torch.float64).sum()
        model.train()
        scale = 0.5 * (1.0 + math.cos(math.pi * index / max(num_chunks - 1, 1)))
        for group in optimizer.param_groups:
            group["lr"] = h.ttt_lr * scale
        for _ in range(h.ttt_epochs):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
                loss = model(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
    reduce_sums(loss_sum, token_count, byte_count)
    return bits_per_byte(loss_sum, token_count, byte_count)


# -----------------------------------------------------------------------------
# Training
# -----------------------------------------------------------------------------


def training_fraction(h: Hyperparameters, step: int, elapsed_ms: float) -> float:
    by_steps = step / max(h.iterations, 1)
    by_clock = elapsed_ms / max(1000.0 * h.max_wallclock_seconds, 1e-9) if h.max_wallclock_seconds > 0 else 0.0
    return min(1.0, max(by_steps, by_clock))


def lr_mul(h: Hyperparameters, frac: float) -> float:
    if h.warmdown_frac <= 0.0 or frac < 1.0 - h.warmdown_frac:
        return 1.0
    return max((1.0 - frac) / h.warmdown_frac, h.min_lr)


def momentum_at(h: Hyperparameters, step: int) -> float:
    x = min(step / h.muon_momentum_warmup_steps, 1.0) if h.muon_momentum_warmup_steps > 0 else 1.0
    return (1.0 - x) * h.muon_momentum_warmup_start + x * h.muon_momentum


def train_model(h: Hyperparameters, world: World, logger: Logger, val_tokens: Tensor, sizes: TokenBytes) -> GPT:
    base_model = GPT(h).to(world.device).bfloat16()
    for module in base_model.modules():
        if isinstance(module, CastedLinear):
            module.float()
    restore_low_dim_params_to_fp32(base_model)
    compiled = torch.compile(base_model, dynamic=False, fullgraph=True) if h.compile_model else base_model
    model = DDP(compiled, device_ids=[world.local_rank], broadcast_buffers=False) if world.size > 1 else compiled
    optimizers = Optimizers(h, base_model)
    average = WeightAverage(base_model, h.ema_decay)
    loader = DistributedTokenLoader(h.train_files, world)
    accum_steps = 8 // world.size
    logger.log0(f"model_params:{sum(p.numel() for p in base_model.parameters())}")

    def step_fn(step: int, scale: float) -> Tensor:
        optimizers.zero_grad()
        train_loss = torch.zeros((), device=world.device)
        for micro_step in range(accum_steps):
            if world.size > 1:
                model.require_backward_grad_sync = micro_step == accum_steps - 1
            x, y = loader.next_batch(h.train_batch_tokens, h.train_seq_len, accum_steps)
            with torch.autocast(device_type="cuda", dtype=torch.bfloat16, enabled=True):
                loss = model(x, y)
            train_loss += loss.detach()
            (loss / accum_steps).backward()
        for group in optimizers.muon.param_groups:
            group["momentum"] = momentum_at(h, step)
        optimizers.set_lr(scale)
        if h.grad_clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(base_model.parameters(), h.grad_clip_norm)
        optimizers.step()
        return train_loss / accum_steps

    if h.warmup_steps > 0:
        # Compiles every graph before the clock starts; the weights are put back afterwards.
        initial = copy.deepcopy(base_model.state_dict())
        initial_optimizers = [copy.deepcopy(o.state_dict()) for o in optimizers.all]
        for warmup_step in range(h.warmup_steps):
            step_fn(warmup_step, 1.0)
        base_model.load_state_dict(initial)
        for optimizer, state in zip(optimizers.all, initial_optimizers, strict=True):
            optimizer.load_state_dict(state)
        loader = DistributedTokenLoader(h.train_files, world)

    training_ms = 0.0
    torch.cuda.synchronize()
    t0 = time.perf_counter()
    step = 0
    stop_after_step: int | None = None
    while True:
        last_step = step == h.iterations or (stop_after_step is not None and step >= stop_after_step)
        if last_step or (h.val_loss_every > 0 and step % h.val_loss_every == 0):
            torch.cuda.synchronize()
            training_ms += 1000.0 * (time.perf_counter() - t0)
            val_loss, val_bpb = eval_val(h, world, model, val_tokens, sizes)
            logger.log0(f"step:{step}/{h.iterations} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f}")
            torch.cuda.synchronize()
            t0 = time.perf_counter()
        if last_step:
            break
        elapsed_ms = training_ms + 1000.0 * (time.perf_counter() - t0)
        frac = training_fraction(h, step, elapsed_ms)
        scale = lr_mul(h, frac)
        if h.num_loops > 0 and not base_model.looping_active and frac >= h.enable_looping_at:
            base_model.looping_active = True
            logger.log0(f"looping from step {step}")
        if h.late_qat_threshold > 0 and scale < h.late_qat_threshold and not CastedLinear.qat_enabled:
            CastedLinear.qat_enabled = True
            logger.log0(f"fake quantisation from step {step}")
        train_loss = step_fn(step, scale)
        average.update(base_model)
        step += 1
        if h.empty_cache_every > 0 and step % h.empty_cache_every == 0:
            torch.cuda.empty_cache()
        if h.train_log_every > 0 and step % h.train_log_every == 0:
            logger.log0(f"step:{step} train_loss:{train_loss.item():.4f} train_time:{elapsed_ms:.0f}ms")
        reached_cap = h.max_wallclock_seconds > 0 and elapsed_ms >= 1000.0 * h.max_wallclock_seconds
        if stop_after_step is None and reached_cap:
            stop_after_step = step
    logger.log0(f"peak memory: {torch.cuda.max_memory_allocated() // 1024 // 1024} MiB")
    average.apply_to(base_model)
    return base_model


def main() -> None:
    h = Hyperparameters()
    world = setup_distributed()
    logger = Logger(h.run_id, world.is_main)
    set_seeds(h.seed)
    sizes = TokenBytes(h.tokenizer_path, h.vocab_size, world.device)
    val_tokens = load_validation_tokens(h.val_files, h.eval_seq_len)
    model = train_model(h, world, logger, val_tokens, sizes)
    total_bytes = serialize(h, model, DistributedTokenLoader(h.train_files, world), logger)
    logger.log0(f"total submission size: {total_bytes} bytes")
    if world.size > 1:
        dist.barrier()
    restored = deserialize(h, world.device)
    loss, bpb = eval_val(h, world, restored, val_tokens, sizes)
    logger.log0(f"final quantized val_loss:{loss:.6f} val_bpb:{bpb:.6f}")
    loss, bpb = eval_val_sliding(h, world, restored, val_tokens, sizes)
    logger.log0(f"final sliding val_loss:{loss:.6f} val_bpb:{bpb:.6f}")
    if h.ttt_enabled:
        loss, bpb = eval_val_ttt(h, world, restored, val_tokens, sizes)
        logger.log0(f"final ttt val_loss:{loss:.6f} val_bpb:{bpb:.6f}")
    if world.size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
