"""Pretrains the model from flags and prints the metric."""
# ruff: noqa

import argparse
import os
import time

import torch
from core_eval import evaluate_bpb, evaluate_core
from dataloader import packed_loader
from gpt import GPT, GPTConfig
from tokenizer import get_tokenizer, list_parquet_files

parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int, default=20)
parser.add_argument("--aspect-ratio", type=int, default=64)
parser.add_argument("--head-dim", type=int, default=128)
parser.add_argument("--max-seq-len", type=int, default=2048)
parser.add_argument("--window-pattern", type=str, default="SSSL")
parser.add_argument("--num-iterations", type=int, default=-1)
parser.add_argument("--target-param-data-ratio", type=float, default=10.5)
parser.add_argument("--device-batch-size", type=int, default=32)
parser.add_argument("--total-batch-size", type=int, default=524288)
parser.add_argument("--embedding-lr", type=float, default=0.3)
parser.add_argument("--unembedding-lr", type=float, default=0.008)
parser.add_argument("--matrix-lr", type=float, default=0.02)
parser.add_argument("--scalar-lr", type=float, default=0.5)
parser.add_argument("--weight-decay", type=float, default=0.28)
parser.add_argument("--warmup-steps", type=int, default=40)
parser.add_argument("--warmdown-ratio", type=float, default=0.65)
parser.add_argument("--final-lr-frac", type=float, default=0.05)
parser.add_argument("--eval-every", type=int, default=250)
parser.add_argument("--eval-tokens", type=int, default=80 * 524288)
parser.add_argument("--core-metric-every", type=int, default=2000)
parser.add_argument("--core-metric-max-per-task", type=int, default=500)
args = parser.parse_args()

os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
tokenizer = get_tokenizer()


def build_model_meta(depth):
    base_dim = depth * args.aspect_ratio
    model_dim = ((base_dim + args.head_dim - 1) // args.head_dim) * args.head_dim
    num_heads = model_dim // args.head_dim
    config = GPTConfig(
        sequence_len=args.max_seq_len,
        vocab_size=tokenizer.get_vocab_size(),
        n_layer=depth,
        n_head=num_heads,
        n_kv_head=num_heads,
        n_embd=model_dim,
        window_pattern=args.window_pattern,
    )
    with torch.device("meta"):
        return GPT(config)


model = build_model_meta(args.depth)
model.to_empty(device="cuda")
model.init_weights()
orig_model = model
model = torch.compile(model, dynamic=False)

target_tokens = int(args.target_param_data_ratio * orig_model.num_scaling_params())
if args.num_iterations > 0:
    num_iterations = args.num_iterations
else:
    num_iterations = target_tokens // args.total_batch_size
grad_accum_steps = args.total_batch_size // (args.device_batch_size * args.max_seq_len)

weight_decay_scaled = args.weight_decay * (args.total_batch_size / 524288) ** 0.5
optimizer = orig_model.setup_optimizer(
    unembedding_lr=args.unembedding_lr,
    embedding_lr=args.embedding_lr,
    matrix_lr=args.matrix_lr,
    scalar_lr=args.scalar_lr,
    weight_decay=weight_decay_scaled,
)

train_loader = packed_loader(tokenizer, list_parquet_files("train"), args.device_batch_size, args.max_seq_len)
x, y = next(train_loader)


def get_lr_multiplier(it):
    warmdown_iters = round(args.warmdown_ratio * num_iterations)
    if it < args.warmup_steps:
        return (it + 1) / args.warmup_steps
    if it <= num_iterations - warmdown_iters:
        return 1.0
    progress = (num_iterations - it) / warmdown_iters
    return progress + (1 - progress) * args.final_lr_frac


def get_muon_momentum(it):
    frac = min(it / 300, 1)
    return (1 - frac) * 0.85 + frac * 0.95


def get_weight_decay(it):
    return weight_decay_scaled * (1 - it / num_iterations)


step = 0
total_training_time = 0
while True:
    last_step = step == num_iterations
    if args.eval_every > 0 and (last_step or step % args.eval_every == 0):
        model.eval()
        val_loader = packed_loader(tokenizer, list_parquet_files("val"), args.device_batch_size, args.max_seq_len)
        val_bpb = evaluate_bpb(model, val_loader, args.eval_tokens // (args.device_batch_size * args.max_seq_len))
        print(f"step {step} val bpb: {val_bpb:.6f}")
        model.train()
    if args.core_metric_every > 0 and (last_step or (step > 0 and step % args.core_metric_every == 0)):
        model.eval()
        results = evaluate_core(orig_model, tokenizer, max_per_task=args.core_metric_max_per_task)
        print(f"step {step} CORE metric: {results['core_metric']:.4f}")
        model.train()
    if last_step:
        break
    t0 = time.time()
    for micro_step in range(grad_accum_steps):
        loss = model(x, y)
        train_loss = loss.detach()
        loss = loss / grad_accum_steps
        loss.backward()
        x, y = next(train_loader)
    lrm = get_lr_multiplier(step)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * lrm
        if group["kind"] == "muon":
            group["momentum"] = get_muon_momentum(step)
            group["weight_decay"] = get_weight_decay(step)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    total_training_time += time.time() - t0
    step += 1
    if step % 100 == 0:
        print(f"step {step} loss {train_loss.item():.4f} time {total_training_time:.1f}s")
