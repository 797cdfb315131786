"""Which domains a numeric constant belongs to: by its name, and by where its value goes."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from agents.edits.source import FUNCTIONAL, NN, OPTIM, Module, Program
from ledger.vocabulary import Domain

_NAMES: tuple[tuple[str, tuple[Domain, ...]], ...] = (
    # The first row that matches a name counts.
    (r"label_smooth\w*|smoothing", (Domain.REG, Domain.LOSS)),
    (r"softcap|logit_\w*|z_loss\w*|temperature", (Domain.LOSS, Domain.ARCH)),
    (r"quant\w*|bits|clip_(range|percentile|sigma)", (Domain.QUANT,)),
    (r"weight_decay|wd|dropout|drop(_\w+)?|decoupled_decay|l2|l1|stochastic_depth", (Domain.REG,)),
    (r"batch(es)?_?norm_\w+|bn_\w+|norm_(momentum|eps)", (Domain.ARCH,)),
    (r"ema(_\w+)?|swa(_\w+)?|average_\w+", (Domain.OPT,)),
    (
        r"(\w+_)?(warm_?up|cool_?down|warmdown|epochs?|steps?|iters?|iterations|num_epochs)(_\w+)?|(start|end|final|min)_"
        r"(factor|lr|learning_rate|rate|ratio|share)|decay_(share|frac|fraction|start|iters|steps|ratio)|(\w+_)?schedule_\w+"
        r"|train\w*_(s|secs|seconds|time)|time_budget\w*",
        (Domain.SCHED,),
    ),
    (r"(\w+_)?(batch_?size|batch|microbatch\w*|accum\w*)(_\w+)?", (Domain.DATA,)),
    (
        r"(\w+_)?(shift|flip|crop|cutout|translate|translation|augment\w*|mixup|cutmix|noise|jitter|rotat\w*)(_\w+)?",
        (Domain.DATA,),
    ),
    (r"(\w+_)?(seq|sequence|context|block|window)_?(len|length|size|bytes)|ctx_len|seqlen", (Domain.DATA,)),
    (
        r"(\w+_)?(lr|learning_rate)(_\w+)?|momentum|nesterov|beta\w*|adam_\w+|(\w+_)?clip(_\w+)?|max_grad_norm|muon_\w+|ns_\w+",
        (Domain.OPT,),
    ),
    (
        r"(\w+_)?(widths?|channels?|depths?|layers?|heads?|dims?|hidden|kernel\w*|expansion|mlp\w*|embed\w*|groups|filters|"
        r"rank|blocks|stem\w*)(_\w+)?|n_embd|d_model|d_ff|rope_\w+|init_\w+|(\w+_)?(scale|scaling|gain)",
        (Domain.ARCH,),
    ),
    (r"(\w+_)?loss(_\w+)?|gamma|focal\w*", (Domain.LOSS,)),
)

_FUNCTIONS: tuple[tuple[str, Domain], ...] = (
    (r"learning_rate|lr|sched|warm|progress", Domain.SCHED),
    (r"augment|batch|loader|sample|crop|flip|data", Domain.DATA),
    (r"loss|criterion|objective", Domain.LOSS),
    (r"quant|compress|pack", Domain.QUANT),
    (r"optim|muon|newton", Domain.OPT),
)

_CALLS: dict[str, Domain] = {
    f"{FUNCTIONAL}.cross_entropy": Domain.LOSS,
    f"{FUNCTIONAL}.dropout": Domain.REG,
    f"{FUNCTIONAL}.pad": Domain.DATA,
    f"{NN}.Dropout": Domain.REG,
    f"{NN}.CrossEntropyLoss": Domain.LOSS,
    f"{NN}.utils.clip_grad_norm_": Domain.OPT,
    "torch.randint": Domain.DATA,
    "torch.quantize_per_tensor": Domain.QUANT,
}

FIXED = re.compile(
    # What data or the evaluator dictate, what only talks, and what only decides how the work is laid out.
    r"(^|_)(vocab\w*|class(es)?|seeds?|threads?|workers?|every|interval|print|log|verbose|images?|ids?|eos|bos|version|mean|"
    r"std|max_bytes|limit_bytes|chance|port|stride|padding|axis|eps|device|tokens?|ignore_index|in_channels|pad)(_|$)"
)


def named_domains(name: str) -> tuple[Domain, ...]:
    """Domains that a name speaks of; empty where it says nothing."""
    lower = name.lower()
    return next((domains for pattern, domains in _NAMES if re.fullmatch(pattern, lower)), ())


def domains_of(program: Program, module: Module, name: str, node: ast.AST) -> tuple[Domain, ...]:
    """Domains of the number called `name` that `node` defines, likeliest first; empty where nothing tells.

    A name counts as much as two uses; every other domain with as many votes is named too.
    """
    if module.is_inference:
        return (Domain.EVAL,)
    votes: Counter[Domain] = Counter()
    # As an argument, momentum is the optimiser's or a layer's: the call tells, the name does not.
    tells = name != "momentum" or not isinstance(module.parents[node], ast.keyword)
    for domain in named_domains(name) if tells else ():
        votes[domain] += 2
    for home, use in _uses(program, module, name, node):
        for domain in _domains_of_use(program, home, use):
            votes[domain] += 1
    top = max(votes.values(), default=0)
    return tuple(domain for domain, count in votes.items() if count == top)


def _uses(program: Program, module: Module, name: str, node: ast.AST) -> Iterator[tuple[Module, ast.AST]]:
    """The definition itself where it stands in a call, and every place that reads the name."""
    yield module, node
    for home in program.modules:
        stem = module.path.removesuffix(".py").replace("/", ".")
        local = home is module or home.imports.get(name) == f"{stem}.{name}"
        for use in home.reads.get(name, ()):
            if local or isinstance(use, ast.Attribute):
                yield home, use


def _domains_of_use(program: Program, module: Module, node: ast.AST) -> tuple[Domain, ...]:
    """Domains of the nearest surrounding that tells."""
    for above in module.ancestors(node):
        named: tuple[Domain, ...] = ()
        match above:
            case ast.keyword(arg=str(word)):
                named = named_domains(word) if word != "momentum" else ()
            case ast.Call(func=function):
                if (of_call := _domain_of_call(program, module.full(function))) is not None:
                    return (of_call,)
            case ast.FunctionDef(name=word):
                named = tuple(domain for pattern, domain in _FUNCTIONS if re.search(pattern, word.lower()))
            case ast.ClassDef() if any(network.node is above for network in program.networks):
                return (Domain.ARCH,)
            case ast.Assign(targets=[ast.Name(id=word)] | [ast.Attribute(attr=word)]):
                named = named_domains(word)
        if named:
            return named
    return ()


def _domain_of_call(program: Program, full: str) -> Domain | None:
    if full in _CALLS:
        return _CALLS[full]
    if full.startswith(f"{OPTIM}.lr_scheduler."):
        return Domain.SCHED
    if full.startswith(f"{OPTIM}."):
        return Domain.OPT
    own: set[str] = {network.node.name for network in program.networks}
    if full.rsplit(".", 1)[-1] in own or (full.startswith(f"{NN}.") and not full.startswith(f"{FUNCTIONAL}.")):
        return Domain.ARCH
    return None


@lru_cache(maxsize=32)
def dictated(program: Program) -> frozenset[str]:
    """Names that the size of a network's answer is made of: the data fix them, whatever they are called."""
    found: set[str] = set()
    for network in program.whole:
        linear = [name for name, _ in network.calls if network.layer_type(name) == f"{NN}.Linear"]
        for argument in network.layers[linear[-1]].args[1:2] if linear else ():
            found |= {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    return frozenset(found)
