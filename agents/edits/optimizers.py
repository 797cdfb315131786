"""Edits of the optimiser: another one, clipped or centred gradients, averaged weights, further arguments."""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from agents.edits.constants import literal, number_in
from agents.edits.edit import Edit, Splice
from agents.edits.layers import numbered, shown
from agents.edits.objective import with_argument
from agents.edits.source import OPTIM, Module, Program, Step
from ledger.vocabulary import Domain


@dataclass(frozen=True)
class _Optimizer:
    """How one of torch.optim is set up beside another."""

    rate: float
    """A usual learning rate where SGD with momentum has 1."""
    keeps: frozenset[str]
    """Keyword arguments that mean the same for it."""
    adds: str
    """Further keyword arguments for a short run."""


_COMMON = frozenset({"lr", "weight_decay"})
_OPTIMIZERS: dict[str, _Optimizer] = {
    "SGD": _Optimizer(1.0, _COMMON | {"momentum", "nesterov"}, "momentum=0.9, nesterov=True"),
    "AdamW": _Optimizer(0.03, _COMMON | {"betas", "eps"}, "betas=(0.9, 0.95)"),
    "Adam": _Optimizer(0.03, _COMMON | {"betas", "eps"}, "betas=(0.9, 0.95)"),
    "NAdam": _Optimizer(0.03, _COMMON | {"betas", "eps"}, "betas=(0.9, 0.95)"),
    "RAdam": _Optimizer(0.03, _COMMON | {"betas", "eps"}, "betas=(0.9, 0.95)"),
    "RMSprop": _Optimizer(0.01, _COMMON, "alpha=0.95"),
    "Adagrad": _Optimizer(0.1, _COMMON, ""),
}
_TARGETS = {
    "SGD": ("AdamW", "NAdam", "RMSprop", "Adagrad"),
    "AdamW": ("NAdam", "Adam", "RAdam", "RMSprop", "SGD"),
    "Adam": ("AdamW", "NAdam", "RAdam", "RMSprop", "SGD"),
    "NAdam": ("AdamW", "RAdam", "SGD"),
    "RAdam": ("AdamW", "NAdam", "SGD"),
    "RMSprop": ("AdamW", "NAdam", "SGD"),
    "Adagrad": ("AdamW", "SGD"),
}
_TRAITS = {
    "SGD": "generalise better than steps of equal size for every weight",
    "AdamW": "give every weight a step of its own size",
    "Adam": "tie weight decay to each weight's step size",
    "NAdam": "look ahead along the momentum",
    "RAdam": "avoid the large first steps of Adam",
    "RMSprop": "react faster than an optimiser with momentum",
    "Adagrad": "slow down weights that moved much",
}


def swap_optimizer(program: Program) -> Iterator[Edit]:
    """Another optimiser of torch.optim, its learning rate converted where it is written."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            name = module.full(call.func).removeprefix(f"{OPTIM}.")
            if (
                module.full(call.func) != f"{OPTIM}.{name}"
                or name not in _TARGETS
                or not isinstance(call.func, ast.Attribute)
            ):
                continue
            site = numbered(module, counts, call, "optimizer")
            for target in _TARGETS[name]:
                if (splices := _converted(program, module, call, name, target)) is not None:
                    change = f"Replacing {name} by {target} in {shown(site)}, learning rate converted"
                    yield Edit("swap_optimizer", site, target, Domain.OPT, change, _TRAITS[target], splices)


def _converted(
    program: Program, module: Module, call: ast.Call, name: str, target: str
) -> tuple[tuple[str, Splice], ...] | None:
    old, new = _OPTIMIZERS[name], _OPTIMIZERS[target]
    ratio = new.rate / old.rate
    assert isinstance(call.func, ast.Attribute)
    parts = [module.text(argument) for argument in call.args[:1]]
    elsewhere: tuple[tuple[str, Splice], ...] = ()
    for keyword in call.keywords:
        text = module.text(keyword)
        if keyword.arg is None or len(call.args) > 1:
            return None
        if keyword.arg == "lr" and ratio != 1.0:
            if (defined := _definition(program, module, keyword.value)) is not None:
                home, value, number = defined
                # The schedule reads the same constant: converting it there converts both.
                elsewhere = (home.replace(value, literal(number * ratio, home.text(value))),)
            else:
                number_here = number_in(keyword.value)
                text = (
                    f"lr={module.text(keyword.value)} * {ratio:.3g}"
                    if number_here is None
                    else f"lr={literal(number_here * ratio, '')}"
                )
        given_by_both = keyword.arg in new.keeps
        if given_by_both or keyword.arg == "params":
            parts.append(text)
    known = {part.split("=", 1)[0] for part in parts}
    parts += [added for added in _split(new.adds) if added.split("=", 1)[0] not in known]
    text = f"{module.text(call.func.value)}.{target}({', '.join(parts)})"
    return (module.replace(call, text), *elsewhere)


def _split(arguments: str) -> list[str]:
    return [ast.unparse(keyword) for keyword in ast.parse(f"f({arguments})", mode="eval").body.keywords]  # type: ignore[attr-defined]


def _definition(program: Program, module: Module, value: ast.expr) -> tuple[Module, ast.expr, float] | None:
    """Where the constant that `value` names is written, with its number."""
    if not isinstance(value, ast.Name):
        return None
    for home in program.modules:
        stem = home.path.removesuffix(".py").replace("/", ".")
        if home is not module and module.imports.get(value.id) != f"{stem}.{value.id}":
            continue
        for node in home.tree.body:
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=written)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as written)
                ) if name == value.id and (number := number_in(written)) is not None:
                    return home, written, float(number)
    return None


_ARGUMENTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    # optimiser -> (argument that is not given, value, reason)
    "SGD": (
        ("momentum", "0.9", "carry speed through flat directions"),
        ("nesterov", "True", "look ahead along the momentum"),
    ),
    "AdamW": (
        ("betas", "(0.9, 0.95)", "forget old gradient sizes faster in a short run"),
        ("betas", "(0.8, 0.95)", "react faster in a short run"),
        ("betas", "(0.95, 0.99)", "average gradients over more steps"),
        ("amsgrad", "True", "keep rare large gradients in mind"),
        ("eps", "1e-6", "tame the steps of weights with tiny gradients"),
    ),
}
_ARGUMENTS["Adam"] = _ARGUMENTS["NAdam"] = _ARGUMENTS["AdamW"][:3]


def set_argument(program: Program) -> Iterator[Edit]:
    """An argument of the optimiser that the recipe leaves at its default."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            name = module.full(call.func).removeprefix(f"{OPTIM}.")
            if module.full(call.func) != f"{OPTIM}.{name}" or name not in _ARGUMENTS:
                continue
            site = numbered(module, counts, call, "optimizer")
            given = {keyword.arg for keyword in call.keywords}
            for argument, value, reason in _ARGUMENTS[name]:
                if argument in given or None in given or (argument == "nesterov" and "momentum" not in given):
                    continue
                splice = with_argument(module, call, f"{argument}={value}")
                change = f"Giving {name} {argument}={value} in {shown(site)}"
                move = f"{argument}={value}".replace(" ", "")
                yield Edit("set_argument", site, move, Domain.OPT, change, reason, (splice,))


def gradients(program: Program) -> Iterator[Edit]:
    """Gradients are clipped, or freed of their mean (Yong et al. 2020), before each step."""
    for step in program.steps:
        module, text = step.module, step.module.text(step.function)
        torch = module.reach("torch")
        site = module.place(step.statement, "step")
        if torch is not None and "clip_grad" not in text:
            for norm in (0.5, 1.0, 2.0):
                line = f"{torch}.nn.utils.clip_grad_norm_({step.parameters}, {norm})"
                change = f"Clipping the gradient norm at {norm} before {shown(site)}"
                reason = "keep single batches from throwing training off"
                yield Edit(
                    "clip_gradient",
                    site,
                    f"at{norm:g}",
                    Domain.OPT,
                    change,
                    reason,
                    (module.before(step.statement, line),),
                    cost=1,
                )
        name = module.fresh("weight")
        lines = (
            f"for {name} in {step.parameters.replace('weight', name) if name != 'weight' else step.parameters}:",
            f"    if {name}.grad is not None and {name}.ndim > 1:",
            f"        {name}.grad -= {name}.grad.mean(dim=tuple(range(1, {name}.ndim)), keepdim=True)",
        )
        change, reason = (
            f"Taking the mean out of each unit's gradient before {shown(site)}",
            "smooth the loss surface along the way",
        )
        yield Edit(
            "centralise_gradient",
            site,
            "on",
            Domain.OPT,
            change,
            reason,
            (module.before(step.statement, *lines),),
            cost=1,
        )


def average_weights(program: Program) -> Iterator[Edit]:
    """The network that is saved is a running mean of the weights over the last steps."""
    for step in program.steps:
        module, loop = step.module, step.loop
        torch = module.reach("torch")
        if torch is None or loop is None or not module.owns_lines(loop) or not _known_before(step):
            continue
        names = {word: module.fresh(word) for word in ("averaged", "live", "mean")}
        live, mean, averaged = names["live"], names["mean"], names["averaged"]
        for decay in (0.8, 0.9, 0.97):
            splices = (
                module.before(loop, f"{averaged} = [{live}.detach().clone() for {live} in {step.parameters}]"),
                module.after(
                    step.statement,
                    f"for {mean}, {live} in zip({averaged}, {step.parameters}):",
                    f"    {mean}.lerp_({live}.detach(), {1 - decay:.2g})",
                ),
                module.after(
                    loop, f"for {mean}, {live} in zip({averaged}, {step.parameters}):", f"    {live}.data.copy_({mean})"
                ),
            )
            site = module.place(step.statement, "step")
            change = f"Saving a running mean of the weights, decay {decay}, over the steps of {shown(site)}"
            reason = "take the noise of the last steps out of the weights"
            yield Edit("average_weights", site, f"d{decay:g}", Domain.OPT, change, reason, splices, cost=1)


def _known_before(step: Step) -> bool:
    """Whether the optimiser exists above the loop: an argument, or assigned before it."""
    assert step.loop is not None
    source = ast.parse(step.parameters, mode="eval")
    bound = {node.id for node in ast.walk(source) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    needed = {node.id for node in ast.walk(source) if isinstance(node, ast.Name)} - bound
    known = {argument.arg for argument in (*step.function.args.args, *step.function.args.kwonlyargs)}
    for statement in ast.walk(step.function):
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.lineno < step.loop.lineno:
            known |= {
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
    return needed <= known


OPTIMIZER_OPERATORS = (swap_optimizer, set_argument, gradients, average_weights)
