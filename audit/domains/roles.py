"""What each function and class of a recipe is for: the surface it belongs to as a whole."""

import ast
import re
from collections import Counter
from functools import cached_property

from audit.domains.canon import Function
from audit.domains.names import snake
from audit.domains.program import Program
from audit.domains.words import called
from ledger.vocabulary import Domain

_MODULES = frozenset(
    {
        "Module",
        "ModuleList",
        "Sequential",
        "Linear",
        "Embedding",
        "Conv1d",
        "Conv2d",
        "BatchNorm2d",
        "LayerNorm",
        "RMSNorm",
        "GroupNorm",
    }
)
_DATA_CLASSES = re.compile(r"(Iterable)?Dataset|DataLoader|Sampler")
_CLASS_NAMES = (
    (Domain.QUANT, re.compile(r"quant|gptq|codec|packer|compress|hessian", re.I)),
    (Domain.DATA, re.compile(r"loader|dataset|tokeni[sz]er|sampler|stream|shard|augment|batches", re.I)),
    (Domain.OPT, re.compile(r"optimi[sz]er|muon|adam|^sgd|lion|shampoo|soap|^ema|averag|lookahead", re.I)),
    (Domain.SCHED, re.compile(r"sched|warmup|annealer", re.I)),
    (Domain.LOSS, re.compile(r"loss|criterion|objective", re.I)),
    (Domain.SYS, re.compile(r"logger|timer|profil|distrib", re.I)),
)
_CONFIGS = re.compile(r"config|hyper|args|hparams|settings|params|options|budget|^h$", re.I)

# A function's name says what it is for more surely than a variable's; read in order.
_FUNCTION_NAMES = (
    (
        Domain.QUANT,
        r"quant|dequant|gptq|(?:en|de)code_(?:matrix|tensor|weight|state|row)|^restore$|int[468]\b|_int[468]|pack_(?:bits|int|weights|nibbles)|unpack|compress|serialize|artifact|prun|codebook"
        r"|hessian|calibrat|export|clip_scale|rle_|huffman|byte_shuffle",
    ),
    (
        Domain.EVAL,
        r"^_?eval|evaluat|valid|^val_|_val$|ttt|sliding|^infer|predict|(?:^|_)tta|bpb|accuracy|^generate|score|core_metric|test_time|adapt_",
    ),
    (
        Domain.SCHED,
        r"sched|(?:^|_)lr(?:_|$)|lr_mul|warm_?up|warm_?down|cool_?down|anneal|momentum_at|get_\w*momentum|get_weight_decay|_at_step",
    ),
    (
        Domain.OPT,
        r"optimi[sz]er|zeropower|newton|muon|adam|(?:^|_)ema|swa|clip_grad|param_groups|polar|orthogonali[sz]e|average_weights|update_average",
    ),
    (Domain.LOSS, r"loss|cross_entropy|criterion|objective"),
    (
        Domain.DATA,
        r"load_data|loader|(?:data|batch|token)_(?:gen|iter|stream)|get_batch|next_batch|batches|tokeni[sz]|shuffle|augment|crop|flip|cutout|translate|shard|dataset|pack_doc|pack_seq"
        r"|load_tokens|read_tokens|mixup|cutmix|curriculum|sample_",
    ),
    (
        Domain.SYS,
        r"^print|^log|_log$|init_dist|setup_dist|distributed|compile|warm_kernel|set_seed|save_|load_checkpoint|profil|flops|benchmark"
        r"|timer|num_params|num_\w*params|count_param|param_count|sync|cleanup|device|get_mem",
    ),
)
_BY_FUNCTION = tuple((domain, re.compile(words)) for domain, words in _FUNCTION_NAMES)
_ENTRY_POINTS = re.compile(r"main|train|train_model|train_and_\w+|run|fit|launch|run_\w+|train_\w+")
_INIT_NAMES = re.compile(r"_*init_?weights\w*|_*reset_parameters|reset|init_\w+|_init\w*|.*_init|init_linear")


class Roles:
    """Surfaces of the functions and classes of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._known: dict[ast.AST, Domain | None] = {}
        self._open: set[ast.AST] = set()

    def of_class(self, node: ast.ClassDef) -> Domain | None:
        """By what it inherits, then by its name; None for configurations and plain records."""
        if node not in self._known:
            self._known[node] = self._class(node)
        return self._known[node]

    def _class(self, node: ast.ClassDef) -> Domain | None:
        bases = self._bases(node, set())
        if "Optimizer" in bases:
            return Domain.OPT
        named = next((domain for domain, words in _CLASS_NAMES if words.search(node.name)), None)
        if bases & _MODULES:
            return named if named in (Domain.QUANT, Domain.LOSS) else Domain.ARCH
        if any(_DATA_CLASSES.fullmatch(base) for base in bases):
            return Domain.DATA
        return None if self.is_config(node) else named

    def _bases(self, node: ast.ClassDef, seen: set[str]) -> set[str]:
        found: set[str] = set()
        for base in node.bases:
            name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
            found.add(name)
            if name in self.program.classes and name not in seen:
                found |= self._bases(self.program.classes[name], seen | {name})
        return found

    def is_config(self, node: ast.ClassDef) -> bool:
        """Whether the class only holds values."""
        fields = sum(isinstance(item, ast.AnnAssign | ast.Assign) for item in node.body)
        return (_CONFIGS.search(node.name) is not None or fields * 2 > len(node.body)) and fields > 0

    def of(self, function: Function | None) -> Domain | None:
        """By class, then by name, then by who calls it; None for a function that does a bit of everything."""
        if function is None:
            return None
        if function not in self._known:
            if function in self._open:
                return None
            self._open.add(function)
            self._known[function] = self._function(function)
            self._open.discard(function)
        return self._known[function]

    def _function(self, function: Function) -> Domain | None:
        outer = self.program.function_of(function)
        owner = self.program.class_of(function) if outer is None else None
        named = self._named(function)
        if owner is not None:
            role = self.of_class(owner)
            if role is Domain.ARCH:
                return named if named is not None and function.name not in ("forward", "__init__") else Domain.ARCH
            if role is not None:
                return role
        if named is not None:
            return named
        if outer is not None and (inherited := self.of(outer)) is not None:
            return inherited
        if _ENTRY_POINTS.fullmatch(function.name):
            return None
        if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
            # In a training program a generator feeds batches.
            return Domain.DATA
        return self._by_callers(function)

    def _named(self, function: Function) -> Domain | None:
        return self.of_name(function.name)

    def of_name(self, name: str) -> Domain | None:
        """What a function of this name is for, as far as the name says it."""
        text = snake(name)
        if name.startswith("__"):
            return None
        return next((domain for domain, words in _BY_FUNCTION if words.search(text)), None)

    def _by_callers(self, function: Function) -> Domain | None:
        votes: Counter[Domain] = Counter()
        for call in [*self.program.calls.get(function.name, ()), *self.program.loads.get(function.name, ())]:
            role = self.of(self.program.function_of(call))
            if role is not None:
                votes[role] += 1
        if not votes:
            return self._by_body(function)
        # Evaluation and quantisation run the model too; who trains it decides.
        best, _ = max(votes.items(), key=lambda vote: (vote[0] is Domain.ARCH, vote[1]))
        return best

    def _by_body(self, function: Function) -> Domain | None:
        names = {called(call) for call in ast.walk(function) if isinstance(call, ast.Call)}
        if names & {"cross_entropy", "mse_loss", "kl_div"} and "backward" not in names:
            return Domain.LOSS
        return None

    @cached_property
    def model_classes(self) -> set[ast.ClassDef]:
        """Classes whose instances are modules of the model."""
        return {node for node in self.program.classes.values() if self.of_class(node) is Domain.ARCH}

    def is_forward(self, node: ast.AST) -> bool:
        """Whether `node` stands in what the model computes, parameters and wiring included, initial values excepted."""
        function = self.program.function_of(node)
        if function is None:
            owner = node if isinstance(node, ast.ClassDef) else self.program.class_of(node)
            return owner is not None and self.of_class(owner) is Domain.ARCH
        return self.of(function) is Domain.ARCH and not self.is_init(function)

    def is_init(self, function: Function) -> bool:
        """Whether the function only sets initial values."""
        return function.name != "__init__" and _INIT_NAMES.fullmatch(function.name) is not None
