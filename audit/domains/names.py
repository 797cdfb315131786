"""What the field's names stand for: identifiers and library calls by surface, and which of them are sizes."""

import re

from ledger.vocabulary import Domain

# Read in order, the first match wins: the more a name says, the earlier it stands. `ttt_lr` is test-time training
# before it is a learning rate, `warmup_lr` a schedule before it is an optimiser's constant.
_IDENTIFIERS: tuple[tuple[Domain, str], ...] = (
    (
        Domain.EVAL,
        r"ttt|tta|sliding|eval|val(?:id(?:ation)?)?|infer(?:ence)?|predict\w*|score|bpb|accuracy|core_metric",
    ),
    (
        Domain.QUANT,
        r"quant\w*|dequant\w*|qat|gptq|int[468]|bits?|nbits|clip_?(?:range|sigmas?|pct)|compress\w*|decompress\w*|brotli"
        r"|lzma|zlib|zstd|unpack|packed|artifact|prun\w*|codebook|hessian|calib\w*|percdamp|export\w*|serialize|deserialize",
    ),
    (
        Domain.REG,
        r"wd|weight_?decay\w*|drop(?:out|path|_path|_prob)?|label_smooth\w*|smoothing|stochastic_depth|jitter|noise",
    ),
    (
        Domain.SCHED,
        r"warm_?up|warm_?down|cool_?down|anneal\w*|sched\w*|iterations|num_iter\w*|max_steps|num_steps|total_steps|epochs?"
        r"|lr_mul|lr_scale|get_lr|final_lr\w*|min_lr|max_wallclock\w*|train_seconds|time_budget|data_ratio|flops_target"
        r"|batch_size|batch_tokens|(?:total|train|global)_batch\w*",
    ),
    (Domain.LOSS, r"loss|z_loss|ce|cross_entropy|criterion|aux_weight|mtp|nll|objective|distill\w*|focal"),
    (
        Domain.OPT,
        r"lrs?|learning_rate|betas?|beta[12]|momentum|nesterov|muon\w*|adamw?|sgd|lion|shampoo|soap|optim\w*|ema\w*|swa|lookahead"
        r"|(?:grad|max)_?(?:clip|norm)\w*|clip_grad\w*|ns_steps|newton\w*|zeropower\w*|polar|param_groups?|backend_steps"
        r"|adam_eps|bias_scaler",
    ),
    (
        Domain.DATA,
        r"data|dataset|tokeni[sz]er|shards?|shuffle|sampl(?:e|er|ing)|aug\w*|flip|cutout|translate|crop|mixup|cutmix|curriculum"
        r"|(?:train_|max_)?seq_len|sequence_len\w*|loader|bos|doc(?:ument)?s?|packing|corpus|get_batch|next_batch|batches|mask_ratio",
    ),
    (
        Domain.SYS,
        r"compile\w*|num_workers|workers|pin_memory|prefetch\w*|dtype|world_size|rank|device\w*|log\w*|print\w*|cudnn|tf32|amp"
        r"|autocast|profil\w*|accum\w*|micro_?batch\w*|non_blocking|channels_last|benchmark|verbose|wandb|seed|checkpoint\w*|fp8"
        r"|fused|flops|num_params|master_process|timer|save_every|run_name|run_id",
    ),
    (
        Domain.ARCH,
        r"layers?|depth|heads?|kv_heads?|n_head|n_kv_head|dim|hidden|width|widths|embd?|embed\w*|rope\w*|rotary|yarn|mlp\w*|ffn|expand"
        r"|softcap|soft_cap|cap|gain|residual\w*|resid\w*|skip\w*|norm|attn|attention|window\w*|loops?|recur\w*|vocab\w*|tie\w*|conv\w*"
        r"|kernel_size|stride|channels?|experts?|gate\w*|bigram\w*|smear|xsa\w*|init\w*|lambdas?|scaling_factor|whiten\w*"
        r"|activation|bias|unet\w*|pool\w*|groups",
    ),
)
_BY_IDENTIFIER = tuple((domain, re.compile(rf"(?:^|_)(?:{words})(?:_|$)")) for domain, words in _IDENTIFIERS)

# Library calls whose meaning does not depend on who calls them. Matched against the last part of a dotted name.
_CALLS: tuple[tuple[Domain, str], ...] = (
    (
        Domain.LOSS,
        r"cross_entropy|CrossEntropyLoss|nll_loss|mse_loss|MSELoss|kl_div|KLDivLoss|binary_cross_entropy\w*|BCE\w*Loss"
        r"|smooth_l1_loss|l1_loss|logsumexp|log_softmax|huber_loss|linear_cross_entropy",
    ),
    (Domain.REG, r"[Dd]ropout\w*|drop_path|DropPath|alpha_dropout"),
    (
        Domain.OPT,
        r"SGD|AdamW?|Adamax|RMSprop|Adagrad|NAdam|RAdam|LBFGS|Muon|NorMuon|DistMuon|DistAdamW?|Lion|Shampoo|SOAP|clip_grad_norm_"
        r"|clip_grad_value_|zero_grad|add_param_group|AveragedModel|lerp_|_foreach_lerp_|_foreach_mul_",
    ),
    (Domain.SCHED, r"LambdaLR|OneCycleLR|CosineAnnealing\w*|StepLR|LinearLR|SequentialLR|interp"),
    (
        Domain.QUANT,
        r"compress|decompress|LZMACompressor|quantize\w*|dequantize\w*|fake_quant\w*|packbits|unpackbits|quantile|cholesky\w*",
    ),
    (
        Domain.DATA,
        r"DataLoader|memmap|fromfile|from_file|randperm|SentencePieceProcessor|load_dataset|encode|encode_batch|affine_grid|grid_sample"
        r"|RandomCrop|RandomHorizontalFlip|Normalize|Compose|read_table|ParquetFile|iter_batches",
    ),
    (
        Domain.SYS,
        r"compile|autocast|synchronize|barrier|all_reduce|init_process_group|destroy_process_group|set_device|empty_cache|perf_counter"
        r"|GradScaler|manual_seed|print|print0|log0|log|write|set_float32_matmul_precision|DistributedDataParallel|DDP|no_sync|to"
        r"|contiguous|pin_memory|memory_format|cuda|Stream|max_memory_allocated|backward|save|load|makedirs|info|checkpoint|time",
    ),
    (
        Domain.ARCH,
        r"Linear|Conv[12]d|Embedding|LayerNorm|RMSNorm|GroupNorm|BatchNorm[12]d|ModuleList|Parameter|MultiheadAttention|rms_norm"
        r"|layer_norm|scaled_dot_product_attention|flash_attn_\w*|flex_attention|softmax|relu|gelu|silu|sigmoid|tanh|MaxPool2d"
        r"|orthogonal_|normal_|uniform_|trunc_normal_|kaiming_\w*|xavier_\w*|dirac_|max_pool2d|avg_pool2d|GELU|ReLU|SiLU",
    ),
)
_BY_CALL = tuple((domain, re.compile(words)) for domain, words in _CALLS)

# In a training loop these names are the position in training time; an expression over them is a schedule.
TIME = re.compile(
    r"(?:.*_)?(?:step|steps_done|it|iter|iteration|epoch|frac|progress|elapsed(?:_\w+)?|time_ms|training_time\w*|tokens_seen|x_frac)"
)
LOGGING = frozenset(
    {"print", "print0", "log", "log0", "log1", "info", "debug", "warning", "write", "append_log", "print_columns"}
)
# Calls that hand their argument on: a constant inside is followed to whatever takes the result.
TRANSPARENT = frozenset(
    {
        "int",
        "float",
        "bool",
        "str",
        "tuple",
        "list",
        "max",
        "min",
        "abs",
        "round",
        "get",
        "getenv",
        "field",
        "sqrt",
        "tensor",
    }
)

_SIZES = re.compile(
    r"(?:^|_)(?:n|num|dims?|layers?|depth|depths|heads?|width|widths|hidden|size|len|length|window|windows|steps?|epochs?"
    r"|iters?|iterations|loops?|batch|tokens|experts?|channels?|kernel|stride|rank|count|chunk|chunks|blocks?|bits|nbits|expand|mult"
    r"|groups?|start|end|last|every|interval|ratio|multiple|seconds|shards|top_k|topk|pattern|vocab|table|ngram|n_embd|translate|cutout"
    r"|pad|padding|stages?)(?:_|$)"
)
_NO_SIZES = re.compile(
    r"(?:^|_)(?:frac|fraction|lr|scale|init|gain|eps|beta\d?|momentum|decay|wd|weight|prob|p|temp\w*|coef\w*)(?:_|$)"
)


def snake(name: str) -> str:
    """`RopeDims`, `--rope-dims` and `ROPE_DIMS` as `rope_dims`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.lstrip("-"))
    return split.replace("-", "_").replace(".", "_").lower()


def domain_of_name(name: str) -> Domain | None:
    """The surface that an identifier alone suggests: a prior, for where nothing shows what it feeds."""
    text = snake(name)
    return next((domain for domain, words in _BY_IDENTIFIER if words.search(text)), None)


def domain_of_call(name: str) -> Domain | None:
    """The surface that a library call belongs to wherever it stands; None for calls that say nothing."""
    return next((domain for domain, words in _BY_CALL if words.fullmatch(name)), None)


def is_time(name: str) -> bool:
    """Whether a variable of this name is the position in training time."""
    return TIME.fullmatch(name) is not None


def is_size(name: str) -> bool:
    """Whether a constant of this name counts or measures structure: a width, a depth, a number of steps."""
    text = snake(name)
    if _SIZES.search(text.rpartition("_")[2]) is not None:
        return True
    return _SIZES.search(text) is not None and _NO_SIZES.search(text) is None
