"""Edits of the examples that a network sees in training and prediction, and of how it is run and stored."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from agents.edits.edit import Edit
from agents.edits.layers import numbered, shown
from agents.edits.source import NN, Module, Program, sans_gradient
from ledger.vocabulary import Domain

_AUGMENTATION = re.compile(r"augment|jitter|crop|flip|shift|cutout|mixup|noise|transform|distort")

_IMAGES = {
    # move -> (lines over {0}, the batch [N,C,H,W], with {torch}; what is done; reason)
    "flip": (
        "{torch}.where({torch}.rand(len({0}), 1, 1, 1) < 0.5, {0}.flip(-1), {0})",
        "Mirroring half of the images",
        "double the variety, where left and right mean the same",
    ),
    "roll": (
        "{torch}.roll({0}, {torch}.randint(-1, 2, (2,)).tolist(), dims=(-2, -1))",
        "Moving each batch by up to a pixel",
        "make features robust to small shifts",
    ),
    "noise": (
        "{0} + 0.05 * {torch}.randn_like({0})",
        "Adding noise of 0.05 to the images",
        "blur what single pixels tell",
    ),
    "contrast": (
        "{0} * (1 + 0.1 * {torch}.randn(len({0}), 1, 1, 1))",
        "Varying the contrast of the images by 10%",
        "make features robust to brightness",
    ),
    "dropout": (
        "{0} * ({torch}.rand(len({0}), 1, *{0}.shape[2:]) > 0.05)",
        "Blanking 5% of the pixels",
        "keep the network from relying on single pixels",
    ),
}
_TOKENS = {
    f"noise{share}": (
        "{0}.where({torch}.rand({0}.shape, device={0}.device) > "
        + share
        + ", {0}.flatten()[{torch}.randint({0}.numel(), {0}.shape, device={0}.device)])",
        f"Replacing {float(share):.0%} of the input tokens by others of the batch",
        "keep the network from leaning on single tokens",
    )
    for share in ("0.02", "0.05", "0.1")
}


def _model_calls(program: Program, inference: bool) -> Iterator[tuple[Module, ast.Call]]:
    """Calls of a network by the name it is bound to, in training or in inference."""
    classes = {network.node.name for network in program.networks}
    for module in program.modules:
        bound: set[str] = set()
        for node in module.nodes:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if any(
                    isinstance(part, ast.Name) and part.id in classes for part in ast.walk(value)
                ):
                    bound.add(name)
                case ast.arg(arg=name, annotation=ast.expr() as annotation) if (
                    module.full(annotation) == f"{NN}.Module" or module.full(annotation).rsplit(".", 1)[-1] in classes
                ):
                    bound.add(name)
        for call in module.calls:
            named = isinstance(call.func, ast.Name) and call.func.id in bound and call.args
            if named and (module.is_inference or sans_gradient(module, call)) == inference:
                yield module, call


def augment(program: Program) -> Iterator[Edit]:
    """Inputs of the network are varied on the way into a training step."""
    if program.uses(f"{NN}.Conv2d"):
        table = _IMAGES
    elif program.uses(f"{NN}.Embedding"):
        table = _TOKENS
    else:
        return
    counts: Counter[str] = Counter()
    for module, call in _model_calls(program, inference=False):
        statement, torch, text = module.statement(call), module.reach("torch"), module.text(call.args[0])
        simple = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr)) and module.owns_lines(
            statement
        )
        nested = any(
            isinstance(above, (ast.Lambda, ast.comprehension, ast.ListComp)) for above in module.ancestors(call)
        )
        site = numbered(module, counts, call, "inputs")
        if torch is None or not simple or nested or "\n" in text:
            continue
        name = module.fresh("varied")
        for move, (template, what, reason) in table.items():
            lines = (f"{name} = {text}", f"{name} = {template.format(name, torch=torch)}")
            splices = (module.before(statement, *lines), module.replace(call.args[0], name))
            yield Edit("augment", site, move, Domain.DATA, f"{what} at {shown(site)}", reason, splices, cost=1)


def existing_augmentation(program: Program) -> Iterator[Edit]:
    """An augmentation that the recipe calls is left out, or stops before the end."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            if (
                not isinstance(call.func, ast.Name)
                or not _AUGMENTATION.search(call.func.id.lower())
                or module.is_inference
            ):
                continue
            if not call.args or not isinstance(call.args[0], (ast.Name, ast.Subscript)):
                continue
            site, plain = numbered(module, counts, call, call.func.id), module.text(call.args[0])
            change, reason = f"Leaving {shown(site)} out", "save its time and train on what is measured"
            yield Edit(
                "remove_augmentation", site, "off", Domain.DATA, change, reason, (module.replace(call, plain),), cost=-1
            )
            if (loop := _counted_loop(module, call)) is None:
                continue
            counter, total = loop
            for share in (0.7, 0.85, 0.95):
                text = f"({module.text(call)} if {counter} < {share} * {total} else {plain})"
                change = f"Ending {shown(site)} after {share:.0%} of training"
                reason = "let the network settle on data as they are measured"
                yield Edit(
                    "plain_finish", site, f"f{share:g}", Domain.DATA, change, reason, (module.replace(call, text),)
                )


def _counted_loop(module: Module, call: ast.Call) -> tuple[str, str] | None:
    """(counter, total) of the outermost `for counter in range(total)` around a call."""
    found = None
    for above in module.ancestors(call):
        match above:
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=[total])):
                found = name, f"({module.text(total)})"
            case ast.FunctionDef():
                break
    return found


def swap_sampling(program: Program) -> Iterator[Edit]:
    """Examples are drawn with replacement instead of once an epoch."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        for call in module.calls:
            if module.full(call.func) == "torch.randperm" and len(call.args) == 1 and not call.keywords:
                site, count = numbered(module, counts, call, "randperm"), module.text(call.args[0])
                text = f"{module.text(call.func).removesuffix('randperm')}randint({count}, ({count},))"
                change, reason = (
                    f"Drawing examples with replacement in {shown(site)}",
                    "vary the mix of examples between epochs",
                )
                yield Edit(
                    "swap_sampling", site, "replacement", Domain.DATA, change, reason, (module.replace(call, text),)
                )


def average_views(program: Program) -> Iterator[Edit]:
    """Prediction adds up what the network says of an image and of its mirrored or shifted copies."""
    if not program.uses(f"{NN}.Conv2d"):
        return
    counts: Counter[str] = Counter()
    for module, call in _model_calls(program, inference=True):
        torch, site = module.reach("torch"), numbered(module, counts, call, "inputs")
        if torch is None or len(call.args) != 1 or not isinstance(call.args[0], ast.Name):
            continue
        name, network = call.args[0].id, module.text(call.func)
        views = {
            "mirror": f"{network}({name}.flip(-1))",
            "shift": " + ".join(
                f"0.5 * {network}({torch}.roll({name}, {shift}, dims={axis}))" for axis in (-1, -2) for shift in (-1, 1)
            ),
        }
        for move, others in views.items():
            change = f"Averaging over {move}ed copies in {shown(site)}"
            splices = (module.replace(call, f"({module.text(call)} + {others})"),)
            yield Edit(
                "average_views",
                site,
                move,
                Domain.EVAL,
                change,
                "cancel errors that differ between views",
                splices,
                cost=1,
            )


def save_half(program: Program) -> Iterator[Edit]:
    """Weights are saved with 16 bits; loading into the network widens them again."""
    for module in program.modules:
        for call in module.calls:
            if module.full(call.func) != "torch.save" or not call.args:
                continue
            match call.args[0]:
                case ast.Call(func=ast.Attribute(attr="state_dict"), args=[], keywords=[]) as state:
                    site = module.place(call, "save")
                    text = (
                        "{name: value.half() if value.is_floating_point() else value "
                        f"for name, value in {module.text(state)}.items()}}"
                    )
                    change, reason = (
                        f"Saving weights in half precision in {shown(site)}",
                        "free half of the artifact for a larger network",
                    )
                    yield Edit(
                        "save_half", site, "half", Domain.QUANT, change, reason, (module.replace(state, text),), size=-1
                    )


def channels_last(program: Program) -> Iterator[Edit]:
    """Convolutions run on memory with the channels innermost."""
    if not program.uses(f"{NN}.Conv2d"):
        return
    whole = {network.node.name for network in program.whole}
    for module in program.modules:
        torch = None if module.is_inference else module.reach("torch")
        for call in module.calls:
            above = module.parents[call]
            if torch and isinstance(call.func, ast.Name) and call.func.id in whole and isinstance(above, ast.Assign):
                site = module.place(call, call.func.id)
                text = f"{module.text(call)}.to(memory_format={torch}.channels_last)"
                change, reason = (
                    f"Keeping the channels of {shown(site)} innermost in memory",
                    "make convolutions faster",
                )
                yield Edit(
                    "channels_last", site, "on", Domain.SYS, change, reason, (module.replace(call, text),), cost=-1
                )


DATA_OPERATORS = (augment, existing_augmentation, swap_sampling)
