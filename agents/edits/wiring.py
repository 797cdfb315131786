"""Edits of how a network is wired: residual paths, tied weights, its logits, and dropout."""

import ast
from collections import Counter
from collections.abc import Iterator

from agents.edits.edit import Edit
from agents.edits.layers import arch_edit, numbered, shown
from agents.edits.source import FUNCTIONAL, NN, Module, Network, Program
from ledger.vocabulary import Domain


def residual(program: Program) -> Iterator[Edit]:
    """An inner network that maps one tensor to one of the same shape adds its input to its output."""
    added = {name for network in program.networks for name in _added(network)}
    for network in program.networks:
        module = network.module
        if (
            network.node.name not in program.inner
            or len(network.inputs) != 1
            or network.node.name in added
            or network.forward is None
        ):
            continue
        source, last = network.inputs[0], network.forward.body[-1]
        # A network that adds something already has its path; one that rebinds its input has lost it.
        adds = any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) for node in ast.walk(network.forward))
        rebound = any(
            isinstance(node, ast.Name) and node.id == source and isinstance(node.ctx, ast.Store)
            for node in ast.walk(network.forward)
        )
        match last:
            case ast.Return(value=ast.expr() as value) if not adds and not rebound and module.owns_lines(last):
                name = value.id if isinstance(value, ast.Name) else module.fresh("transformed")
                lines = [] if isinstance(value, ast.Name) else [f"{name} = {module.text(value)}"]
                splices = [module.before(last, *lines)] if lines else []
                # Stages that change the shape stay as they are.
                text = f"return {name} + {source} if {name}.shape == {source}.shape else {name}"
                change = f"Adding the input of {network.node.name} ({module.path}) to its output where the shapes agree"
                reason = "give gradients a short way down"
                site = module.place(last, "return")
                yield arch_edit("residual", site, "add", change, reason, *splices, module.replace(last, text))


def _added(network: Network) -> Iterator[str]:
    """Classes whose instances are called within a sum."""
    for name, call in network.calls:
        above = network.module.parents[call]
        if isinstance(above, (ast.BinOp, ast.AugAssign)) and isinstance(above.op, ast.Add):
            yield network.layer_type(name).rsplit(".", 1)[-1]


def residual_gain(program: Program) -> Iterator[Edit]:
    """A branch that is added to the stream gets a learnable factor (Bachlechner et al. 2021)."""
    for network in program.networks:
        module = network.module
        torch = module.reach("torch")
        nn = module.reach(NN)
        if network.init is None or torch is None or nn is None or not module.owns_lines(network.init.body[-1]):
            continue
        counts: Counter[str] = Counter()
        for name, call in network.calls:
            above = module.parents[call]
            if not (isinstance(above, ast.BinOp) and isinstance(above.op, ast.Add) and above.right is call):
                continue
            site = numbered(module, counts, call, name)
            gain = f"{name}_gain"
            if counts[module.place(call, name)] > 1 or gain in module.text(network.node):
                continue
            for start in ("0.0", "0.5", "1.0"):
                declared = network.at_end_of_init(f"self.{gain} = {nn}.Parameter({torch}.full((1,), {start}))")
                used = module.replace(call, f"self.{gain} * {module.text(call)}")
                change = f"Giving the branch {shown(site)} a learnable gain that starts at {start}"
                reason = "let the network decide how much of the branch it wants"
                yield arch_edit("residual_gain", site, start, change, reason, declared, used)


def tie_weights(program: Program) -> Iterator[Edit]:
    """A linear layer shares its matrix with an embedding of the same shape, or no longer does."""
    for network in program.networks:
        module = network.module
        if network.init is None or not module.owns_lines(network.init.body[-1]):
            continue
        for node in ast.walk(network.init):
            match node:
                case ast.Assign(
                    targets=[ast.Attribute(value=ast.Attribute(attr=left), attr="weight")],
                    value=ast.Attribute(value=ast.Attribute(attr=right), attr="weight"),
                ) if module.owns_lines(node):
                    site = module.place(node, left)
                    change = f"Giving {shown(site)} a matrix of its own instead of that of {right}"
                    yield arch_edit(
                        "tie_weights",
                        site,
                        "off",
                        change,
                        "let input and output differ",
                        module.replace(node, "pass"),
                        size=1,
                    )
                    return
        embeddings = [name for name in network.layers if network.layer_type(name) == f"{NN}.Embedding"]
        for linear in network.layers:
            bias = {keyword.arg: module.text(keyword.value) for keyword in network.layers[linear].keywords}.get("bias")
            for embedding in embeddings if network.layer_type(linear) == f"{NN}.Linear" and bias == "False" else ():
                shapes = [
                    [module.text(argument) for argument in network.layers[name].args] for name in (linear, embedding)
                ]
                if len(shapes[0]) == 2 and shapes[0] == shapes[1][::-1]:
                    site = module.place(network.init.body[-1], linear)
                    change = f"Sharing one matrix between {embedding} and {shown(site)}"
                    text = f"self.{linear}.weight = self.{embedding}.weight"
                    yield arch_edit(
                        "tie_weights",
                        site,
                        "on",
                        change,
                        "save weights and train them from both ends",
                        network.at_end_of_init(text),
                        size=-1,
                    )


def _heads(program: Program) -> Iterator[tuple[Network, str, ast.Call]]:
    """The last linear layer that a whole network calls: what gives the logits."""
    for network in program.whole:
        linear = [(name, call) for name, call in network.calls if network.layer_type(name) == f"{NN}.Linear"]
        if linear and network.init is not None and network.module.owns_lines(network.init.body[-1]):
            yield network, *linear[-1]


def logits(program: Program, domain: Domain) -> Iterator[Edit]:
    """The logits are bounded softly (Gemma 2), or get a learnable factor."""
    for network, name, call in _heads(program):
        module, torch, nn = network.module, network.module.reach("torch"), network.module.reach(NN)
        if torch is None or nn is None:
            continue
        site, text = module.place(call, name), module.text(call)
        if "tanh" not in module.text(module.statement(call)):
            for cap in (5, 15, 30):
                capped = module.replace(call, f"({cap} * {torch}.tanh({text} / {cap}))")
                change = f"Bounding the logits of {shown(site)} softly at {cap}"
                yield Edit(
                    "softcap",
                    site,
                    f"at{cap}",
                    domain,
                    change,
                    "keep the loss from rewarding overconfidence",
                    (capped,),
                )
        gain = "logit_gain"
        if gain not in module.text(network.node):
            declared = network.at_end_of_init(f"self.{gain} = {nn}.Parameter({torch}.ones(1))")
            used = module.replace(call, f"(self.{gain} * {text})")
            change = f"Giving the logits of {shown(site)} a learnable factor"
            yield Edit(
                "logit_gain", site, "on", domain, change, "let the network set its own confidence", (declared, used)
            )


def add_block(program: Program) -> Iterator[Edit]:
    """A residual block of two linear layers below the last one; it starts as the identity."""
    for network, name, call in _heads(program):
        module, nn = network.module, network.module.reach(NN)
        statement, sizes = module.statement(call), network.layers[name].args
        plain = isinstance(statement, (ast.Return, ast.Assign, ast.AnnAssign)) and module.owns_lines(statement)
        if (
            nn is None
            or not plain
            or len(sizes) != 2
            or len(call.args) != 1
            or "self.block_" in module.text(network.node)
        ):
            continue
        size, source, site = module.text(sizes[0]), module.fresh("entering"), module.place(call, name)
        declared = network.at_end_of_init(
            f"self.block_up = {nn}.Linear({size}, {size})",
            f"self.block_down = {nn}.Linear({size}, {size})",
            f"{nn}.init.zeros_(self.block_down.weight)",
        )
        hoisted = module.before(statement, f"{source} = ({module.text(call.args[0])})")
        used = module.replace(call.args[0], f"{source} + self.block_down(self.block_up({source}).relu())")
        change = f"Adding a residual block of two linear layers before {shown(site)}"
        reason = "let the network combine features once more"
        yield arch_edit("add_block", site, "on", change, reason, declared, hoisted, used, cost=1, size=1)


def dropout(program: Program) -> Iterator[Edit]:
    """Dropout before the last linear layer of a network, or none where there is some."""
    for network in program.networks:
        module, functional = network.module, network.module.reach(FUNCTIONAL)
        linear = [(name, call) for name, call in network.calls if network.layer_type(name) == f"{NN}.Linear"]
        if functional is None or not linear or any("dropout" in module.text(call) for _, call in linear):
            continue
        name, call = linear[-1]
        if len(call.args) != 1 or isinstance(call.args[0], ast.Starred):
            continue
        site = module.place(call, name)
        for share in (0.05, 0.1, 0.2):
            text = f"{functional}.dropout({module.text(call.args[0])}, {share}, self.training)"
            change = f"Dropping {share:.0%} of the input of {shown(site)} in training"
            reason = "narrow the gap between training and unseen data"
            yield Edit(
                "insert_dropout", site, f"p{share}", Domain.REG, change, reason, (module.replace(call.args[0], text),)
            )
    for module in program.modules:
        yield from _dropout_removals(module)


def _dropout_removals(module: Module) -> Iterator[Edit]:
    counts: Counter[str] = Counter()
    for call in module.calls:
        full = module.full(call.func)
        if full == f"{NN}.Dropout" and isinstance(call.func, ast.Attribute):
            text = f"{module.text(call.func.value)}.Identity()"
        elif full == f"{FUNCTIONAL}.dropout" and call.args:
            text = f"({module.text(call.args[0])})"
        else:
            continue
        site = numbered(module, counts, call, "dropout")
        change, reason = f"Removing {shown(site)}", "let the network fit more in a short run"
        yield Edit("remove_dropout", site, "off", Domain.REG, change, reason, (module.replace(call, text),), cost=-1)


WIRING_OPERATORS = (residual, residual_gain, tie_weights, add_block)
