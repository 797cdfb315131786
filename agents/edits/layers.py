"""Edits of layers: activations, normalisation, pooling, attention and initial weights."""

import ast
from collections import Counter
from collections.abc import Iterator

from agents.edits.edit import Edit, Splice
from agents.edits.source import FUNCTIONAL, NN, Module, Program
from ledger.vocabulary import Domain

_ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "leaky_relu": "LeakyReLU", "mish": "Mish"}
"""Name in torch.nn.functional -> name in torch.nn."""
_ACTIVATION_REASONS = {
    "relu": "cost less than a smooth activation",
    "gelu": "pass gradients through units that a hard cut would silence",
    "silu": "pass gradients through units that a hard cut would silence",
    "leaky_relu": "keep gradients alive in units that are off",
    "mish": "smooth the loss surface",
    "relu2": "make features sparser and sharper",
}


def arch_edit(
    family: str,
    site: str,
    move: str,
    change: str,
    reason: str,
    *splices: tuple[str, Splice],
    cost: int = 0,
    size: int = 0,
) -> Edit:
    """An edit in the domain of architecture."""
    return Edit(family, site, move, Domain.ARCH, change, reason, splices, cost, size)


def numbered(module: Module, counts: Counter[str], node: ast.AST, name: str) -> str:
    """Place of a node; the second of its name in its scope carries `#2`."""
    place = module.place(node, name)
    counts[place] += 1
    return place if counts[place] == 1 else f"{place}#{counts[place]}"


def shown(site: str) -> str:
    """A site as prose: `Net.forward.relu (model.py)`."""
    path, place = site.split(":", 1)
    return f"{place} ({path})"


def swap_activation(program: Program) -> Iterator[Edit]:
    """Every activation gives way to each of the others; functional ones also to squared ReLU, and back."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            if (found := _activation(module, call)) is None:
                continue
            kind, argument = found
            site = numbered(module, counts, call, "activation")
            squared = _square_around(module, call) if kind == "relu" else None
            whole, now = (squared, "relu2") if squared is not None else (call, kind)
            for target in (*_ACTIVATIONS, "relu2"):
                text = None if target == now else _activation_text(module, call, argument, target)
                if text is not None:
                    yield arch_edit(
                        "swap_activation",
                        site,
                        target,
                        f"Replacing {now} by {target} in {shown(site)}",
                        _ACTIVATION_REASONS[target],
                        module.replace(whole, text),
                        cost=-1 if target == "relu" and now != "relu2" else 0,
                    )


def _activation(module: Module, call: ast.Call) -> tuple[str, ast.expr | None] | None:
    """(functional name, its argument, or None for a layer without one)."""
    full = module.full(call.func)
    for name, layer in _ACTIVATIONS.items():
        if full == f"{NN}.{layer}":
            return name, None
        if full in (f"{FUNCTIONAL}.{name}", f"torch.{name}") and call.args:
            return name, call.args[0]
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr == name
            and not full.startswith("torch")
            and not call.args
        ):
            return name, call.func.value
    return None


def _activation_text(module: Module, call: ast.Call, argument: ast.expr | None, target: str) -> str | None:
    if argument is None:
        if target == "relu2" or not isinstance(call.func, ast.Attribute):
            return None
        return f"{module.text(call.func.value)}.{_ACTIVATIONS[target]}()"
    if (functional := module.reach(FUNCTIONAL)) is None:
        return None
    inner = module.text(argument)
    return f"{functional}.relu({inner}).square()" if target == "relu2" else f"{functional}.{target}({inner})"


def _square_around(module: Module, call: ast.Call) -> ast.expr | None:
    """The expression that squares the call, where there is one."""
    match module.parents[call]:
        case ast.Attribute(attr="square" | "pow") as attribute:
            above = module.parents[attribute]
            return above if isinstance(above, ast.Call) else None
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=2)) as power:
            return power
    return None


_NORMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    # layer -> (name of the move, new call with {0} for the channels and {nn} for torch.nn, reason)
    "BatchNorm2d": (
        ("groupnorm", "{nn}.GroupNorm(1, {0})", "make training and prediction alike, whatever the batch"),
        ("instancenorm", "{nn}.InstanceNorm2d({0}, affine=True)", "take out contrast that differs between images"),
    ),
    "GroupNorm": (("batchnorm", "{nn}.BatchNorm2d({1})", "regularise through the noise of the batch"),),
    "LayerNorm": (("rmsnorm", "{nn}.RMSNorm({0})", "save the mean, which the network does not need"),),
    "RMSNorm": (("layernorm", "{nn}.LayerNorm({0})", "take out the mean that drifts in training"),),
    "BatchNorm1d": (),
}


def norms(program: Program) -> Iterator[Edit]:
    """Normalisation layers swapped, or taken out."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            full = module.full(call.func)
            name = full.removeprefix(f"{NN}.")
            if full == f"{FUNCTIONAL}.rms_norm" and call.args:
                yield from _functional_norm(module, numbered(module, counts, call, "rms_norm"), call)
            if full != f"{NN}.{name}" or name not in _NORMS or not isinstance(call.func, ast.Attribute):
                continue
            site = numbered(module, counts, call, "norm")
            prefix, arguments = module.text(call.func.value), [module.text(argument) for argument in call.args]
            for move, template, reason in _NORMS[name]:
                if len(arguments) > template.count("{1}"):
                    text = template.format(*arguments, nn=prefix)
                    change = f"Replacing {name} by {text} in {shown(site)}"
                    yield arch_edit("swap_norm", site, move, change, reason, module.replace(call, text))
            change = f"Removing {name} from {shown(site)}"
            reason = "save its time, if training stays stable without it"
            yield arch_edit(
                "remove_norm", site, "off", change, reason, module.replace(call, f"{prefix}.Identity()"), cost=-1
            )


def _functional_norm(module: Module, site: str, call: ast.Call) -> Iterator[Edit]:
    functional, inner = module.reach(FUNCTIONAL), module.text(call.args[0])
    change = f"Removing rms_norm from {shown(site)}"
    reason = "save its time, if training stays stable without it"
    yield arch_edit("remove_norm", site, "off", change, reason, module.replace(call, f"({inner})"), cost=-1)
    if len(call.args) == 2 and not call.keywords and functional is not None:
        text = f"{functional}.layer_norm({inner}, {module.text(call.args[1])})"
        change, reason = (
            f"Replacing rms_norm by layer_norm in {shown(site)}",
            "take out the mean that drifts in training",
        )
        yield arch_edit("swap_norm", site, "layernorm", change, reason, module.replace(call, text))


def norm_before_linear(program: Program) -> Iterator[Edit]:
    """The input of a linear layer is brought to unit root mean square."""
    for network in program.networks:
        functional = network.module.reach(FUNCTIONAL)
        counts: Counter[str] = Counter()
        for name, call in network.calls:
            if network.layer_type(name) != f"{NN}.Linear" or functional is None:
                continue
            match call.args:
                case [ast.Name(id=word) as argument]:
                    site = numbered(network.module, counts, call, name)
                    text = f"{functional}.rms_norm({word}, {word}.shape[-1:])"
                    change = f"Normalising {word} by its root mean square before {shown(site)}"
                    reason = "keep the layer's input at one scale while the layers below change"
                    yield arch_edit(
                        "norm_before_linear",
                        site,
                        "rms",
                        change,
                        reason,
                        network.module.replace(argument, text),
                        cost=1,
                    )


def qk_norm(program: Program) -> Iterator[Edit]:
    """Queries and keys are normalised before attention (Henry et al. 2020)."""
    for module in program.modules:
        functional = module.reach(FUNCTIONAL)
        for call in module.calls:
            if functional is None or module.full(call.func) != f"{FUNCTIONAL}.scaled_dot_product_attention":
                continue
            match call.args:
                case [ast.Name(id=query) as first, ast.Name(id=key) as second, *_]:
                    site = module.place(call, "attention")
                    splices = (
                        module.replace(first, f"{functional}.rms_norm({query}, {query}.shape[-1:])"),
                        module.replace(second, f"{functional}.rms_norm({key}, {key}.shape[-1:])"),
                    )
                    change = f"Normalising queries and keys in {shown(site)}"
                    yield arch_edit(
                        "qk_norm",
                        site,
                        "rms",
                        change,
                        "bound the attention logits and allow larger steps",
                        *splices,
                        cost=1,
                    )


_POOLS = {
    "MaxPool2d": "AvgPool2d",
    "AdaptiveMaxPool2d": "AdaptiveAvgPool2d",
    "max_pool2d": "avg_pool2d",
    "amax": "mean",
}
_POOL_REASONS = {
    True: "keep the strongest response of each feature",
    False: "use every position instead of the strongest alone",
}


def swap_pooling(program: Program) -> Iterator[Edit]:
    """Maximum pooling gives way to the mean, and back."""
    for network in program.networks:
        module = network.module
        counts: Counter[str] = Counter()
        for call in (node for node in ast.walk(network.node) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Attribute):
                continue
            name = call.func.attr
            target = _POOLS.get(name) or {average: maximum for maximum, average in _POOLS.items()}.get(name)
            if target is None or (name in ("amax", "mean") and not _over_several_axes(call)):
                continue
            site = numbered(module, counts, call, name)
            start = module.span(call.func)[1] - len(name)
            splice = (module.path, Splice(start, start + len(name), target))
            largest = target in _POOLS
            change = f"Pooling with {target} instead of {name} in {shown(site)}"
            yield arch_edit("swap_pooling", site, target, change, _POOL_REASONS[largest], splice)


def _over_several_axes(call: ast.Call) -> bool:
    """A mean over one axis is as often a statistic as a pool; over two it is a pool."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("dim", "axis"))]
    return any(isinstance(argument, (ast.Tuple, ast.List)) for argument in arguments)


def initial_weights(program: Program) -> Iterator[Edit]:
    """Initial weights: the last linear layer of a network at zero or scaled, all matrices orthogonal."""
    for network in program.networks:
        module, nn = network.module, network.module.reach(NN)
        if network.init is None or nn is None or not module.owns_lines(network.init.body[-1]):
            continue
        linear = [name for name, _ in network.calls if network.layer_type(name) == f"{NN}.Linear"]
        tied = any(f"self.{name}.weight =" in module.text(network.node) for name in linear)
        if linear and not tied:
            site, last = module.place(network.init.body[-1], linear[-1]), linear[-1]
            # With everything else at random, a zero last layer still gets a gradient.
            text, change = f"{nn}.init.zeros_(self.{last}.weight)", f"Starting the weights of {shown(site)} at zero"
            yield arch_edit(
                "zero_init", site, "zero", change, "start from a calm function", network.at_end_of_init(text)
            )
            for factor in (0.5, 2.0):
                text, change = (
                    f"self.{last}.weight.data.mul_({factor})",
                    f"Scaling the initial weights of {shown(site)} by {factor}",
                )
                reason = "start calmer" if factor < 1 else "learn faster from the first step"
                yield arch_edit("scale_init", site, f"x{factor:g}", change, reason, network.at_end_of_init(text))
        if network in program.whole and not tied:
            site = module.place(network.init.body[-1], "weights")
            name = module.fresh("weight")
            lines = (
                f"for {name} in self.parameters():",
                f"    if {name}.ndim > 1:",
                f"        {nn}.init.orthogonal_({name})",
            )
            change = f"Starting every matrix of {network.node.name} ({module.path}) orthogonal"
            reason = "let signals and gradients keep their size through the layers"
            yield arch_edit("orthogonal_init", site, "on", change, reason, network.at_end_of_init(*lines))


def embedding_scale(program: Program) -> Iterator[Edit]:
    """Initial spread of an embedding."""
    for network in program.networks:
        module, nn = network.module, network.module.reach(NN)
        if network.init is None or nn is None or not module.owns_lines(network.init.body[-1]):
            continue
        for name in network.layers:
            if network.layer_type(name) != f"{NN}.Embedding":
                continue
            site = module.place(network.init.body[-1], name)
            for std in (0.02, 0.1, 0.5):
                splice = network.at_end_of_init(f"{nn}.init.normal_(self.{name}.weight, std={std})")
                change = f"Starting the embedding {shown(site)} with a spread of {std}"
                reason = "begin at a scale that the layers above can use"
                yield arch_edit("scale_init", site, f"std{std}", change, reason, splice)


LAYER_OPERATORS = (
    swap_activation,
    norms,
    norm_before_linear,
    qk_norm,
    swap_pooling,
    initial_weights,
    embedding_scale,
)
