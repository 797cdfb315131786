"""Edits of the schedule: the shape of a rise or fall, a warm-up, a cool-down."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from agents.edits.edit import Edit, Splice
from agents.edits.layers import numbered, shown
from agents.edits.source import OPTIM, Module, Program
from ledger.vocabulary import Domain

_SCHEDULE = re.compile(r"(^|_)(lr|learning_rate|rate|schedule\w*|warm\w*|decay|get_lr|factor)(_|$)")
_STEP = re.compile(r"(^|_)(step|it|iter|iteration|epoch|progress|t|now|elapsed)(_|$)")
_TOTAL = re.compile(r"(^|_)(steps|step_count|total\w*|max_\w+|num_\w+|iters|epochs|duration)(_|$)")

_SHAPES = {
    # What becomes of progress P in 0..1, which the recipe uses as it is.
    "cosine": ("(0.5 - 0.5 * {math}.cos({math}.pi * {p}))", "change slowly at both ends and fast between"),
    "sqrt": ("(max(0.0, {p}) ** 0.5)", "move early, and spend more steps near the end value"),
    "square": ("(({p}) ** 2)", "stay near the start value for longer"),
    "late": ("(max(0.0, {p}) ** 1.5)", "stay near the start value for somewhat longer"),
}


def shape_schedule(program: Program) -> Iterator[Edit]:
    """A linear rise or fall of the learning rate bends; a cosine is straightened."""
    for module in program.modules:
        for function in module.nodes:
            if not isinstance(function, (ast.FunctionDef, ast.Lambda)) or not _is_schedule(module, function):
                continue
            counts: Counter[str] = Counter()
            for node in ast.walk(function):
                match node:
                    case ast.BinOp(op=ast.Div()) if _is_progress(node):
                        yield from _bent(module, numbered(module, counts, node, "progress"), node)
                    case ast.Call(func=ast.Attribute(attr="cos")):
                        yield from _straightened(module, numbered(module, counts, node, "cosine"), node)
    yield from _torch_schedulers(program)


def _is_schedule(module: Module, function: ast.FunctionDef | ast.Lambda) -> bool:
    if isinstance(function, ast.FunctionDef):
        return bool(_SCHEDULE.search(function.name.lower()))
    above = module.parents[function]
    return isinstance(above, ast.Call) and module.full(above.func).startswith(f"{OPTIM}.lr_scheduler.")


def _is_progress(node: ast.BinOp) -> bool:
    """Whether a quotient is of a step counter; one that already bends is left alone."""
    return any(_STEP.search(word.id.lower()) for word in ast.walk(node.left) if isinstance(word, ast.Name)) and not any(
        isinstance(part, ast.BinOp) and isinstance(part.op, (ast.Pow, ast.Div)) for part in ast.walk(node.left)
    )


def _bent(module: Module, site: str, node: ast.BinOp) -> Iterator[Edit]:
    start, end = module.span(node)
    numerator = node.left
    # `a * step / steps` reads as `(a * step) / steps`: only `step / steps` is the progress.
    if isinstance(numerator, ast.BinOp) and isinstance(numerator.op, ast.Mult):
        start, numerator = module.span_with_brackets(numerator.right)[0], numerator.right
        if not any(_STEP.search(word.id.lower()) for word in ast.walk(numerator) if isinstance(word, ast.Name)):
            return
    above = module.parents[node]
    if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Pow):
        return
    progress = module.content[start:end].decode()
    for shape, (template, reason) in _SHAPES.items():
        if shape == "cosine" and module.imports.get("math", "math") != "math":
            continue
        text = template.format(math="math", p=f"({progress})" if shape == "cosine" else progress)
        splices = [(module.path, Splice(start, end, text))]
        if shape == "cosine":
            splices += module.importing("math")
        change = f"Bending the linear {shown(site)} into the shape {shape}"
        yield Edit("shape_schedule", site, shape, Domain.SCHED, change, reason, tuple(splices))


def _straightened(module: Module, site: str, call: ast.Call) -> Iterator[Edit]:
    """cos(pi * p) runs from 1 to -1; so does 1 - 2 p."""
    match call.args:
        case [ast.BinOp(op=ast.Mult(), left=left, right=right)] if module.text(left).endswith("pi"):
            progress = module.text(right)
        case [ast.BinOp(op=ast.Mult(), left=left, right=right)] if module.text(right).endswith("pi"):
            progress = module.text(left)
        case _:
            return
    shapes = {
        "linear": (f"(1 - 2 * ({progress}))", "fall evenly, so that fewer steps are spent at very low rates"),
        "sqrt": (f"(1 - 2 * max(0.0, {progress}) ** 0.5)", "fall early and spend more steps at low rates"),
        "square": (f"(1 - 2 * ({progress}) ** 2)", "hold the rate high for longer"),
    }
    for shape, (text, reason) in shapes.items():
        change = f"Replacing the {shown(site)} by the shape {shape}"
        yield Edit("shape_schedule", site, shape, Domain.SCHED, change, reason, (module.replace(call, text),))


def _torch_schedulers(program: Program) -> Iterator[Edit]:
    for module in program.modules:
        for call in module.calls:
            full = module.full(call.func)
            if full != f"{OPTIM}.lr_scheduler.CosineAnnealingLR" or not isinstance(call.func, ast.Attribute):
                continue
            given = {keyword.arg: module.text(keyword.value) for keyword in call.keywords}
            arguments = [module.text(argument) for argument in call.args]
            steps = given.get("T_max") or (arguments[1] if len(arguments) > 1 else None)
            if steps is None or not arguments:
                continue
            text = f"{module.text(call.func.value)}.LinearLR({arguments[0]}, 1.0, 0.01, total_iters={steps})"
            site = module.place(call, "scheduler")
            change, reason = (
                f"Replacing the cosine of {shown(site)} by a straight line",
                "spend fewer steps at very low rates",
            )
            yield Edit("shape_schedule", site, "linear", Domain.SCHED, change, reason, (module.replace(call, text),))


def warm_and_cool(program: Program) -> Iterator[Edit]:
    """A learning-rate function of a step and a total rises over the first steps, or falls over the last."""
    for module in program.modules:
        for function in module.functions:
            arguments = [argument.arg for argument in function.args.args]
            step = next((name for name in arguments if _STEP.search(name) and not _TOTAL.search(name)), None)
            # The total comes as an argument or stands above as a constant.
            constants = [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and node.id.isupper()]
            total = next((name for name in (*arguments, *constants) if _TOTAL.search(name.lower())), None)
            if _is_schedule(module, function) and step is not None and total is not None:
                yield from _eased(module, function, step, total)


def _eased(module: Module, function: ast.FunctionDef, step: str, total: str) -> Iterator[Edit]:
    returns = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    site = f"{module.path}:{function.name}"

    def edit(family: str, share: float, factor: str, verb: str, reason: str) -> Edit:
        splices = tuple(module.replace(value, f"({module.text(value)}) * {factor}") for value in returns)
        change = f"{verb} {share:.0%} of the steps in {shown(site)}"
        return Edit(family, site, f"f{share:g}", Domain.SCHED, change, reason, splices)

    if returns and "warm" not in module.text(function).lower():
        for share in (0.05, 0.1, 0.2):
            factor = f"min(1.0, ({step} + 1) / ({share} * {total}))"
            reason = "keep the first, badly scaled gradients from doing harm"
            yield edit("add_warmup", share, factor, "Raising the learning rate over the first", reason)
    for share in (0.1, 0.2, 0.4) if returns else ():
        factor = f"min(1.0, ({total} - {step}) / ({share} * {total}))"
        verb, reason = "Lowering the learning rate further over the last", "settle in the minimum that is near"
        yield edit("add_cooldown", share, factor, verb, reason)


SCHEDULE_OPERATORS = (shape_schedule, warm_and_cool)
