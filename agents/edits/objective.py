"""Edits of what is trained on: the loss and its terms, label smoothing."""

import ast
from collections import Counter
from collections.abc import Iterator

from agents.edits.edit import Edit, Splice
from agents.edits.layers import numbered, shown
from agents.edits.source import NN, Module, Program, sans_gradient
from ledger.vocabulary import Domain


def label_smoothing(program: Program, domain: Domain) -> Iterator[Edit]:
    """Targets are softened in cross-entropies that do not do so yet (Szegedy et al. 2016)."""
    layers = (
        (module, call)
        for module in program.modules
        if not module.is_inference
        for call in module.calls
        if module.full(call.func) == f"{NN}.CrossEntropyLoss" and not sans_gradient(module, call)
    )
    counts: Counter[str] = Counter()
    for module, call in (*program.losses, *layers):
        site = numbered(module, counts, call, "cross_entropy")
        if {keyword.arg for keyword in call.keywords} & {"label_smoothing", None}:
            continue
        for amount in (0.02, 0.05, 0.1, 0.2):
            splice = with_argument(module, call, f"label_smoothing={amount}")
            change = f"Smoothing labels by {amount} in {shown(site)}"
            reason = "keep the network from overconfidence on few examples"
            yield Edit("label_smoothing", site, f"s{amount}", domain, change, reason, (splice,))


def with_argument(module: Module, call: ast.Call, argument: str) -> tuple[str, Splice]:
    """The splice that appends an argument to a call."""
    given = [module.span(item)[1] for item in call.args] + [module.span(item)[1] for item in call.keywords]
    # Behind the last argument and not before the bracket: a comment may stand between the two.
    at = max(given, default=module.span(call)[1] - 1)
    return module.path, Splice(at, at, f", {argument}" if given else argument)


_SHAPES = {
    # From the losses of single examples to the loss; {0} is their name.
    "focal0.5": ("({0} * (1 - {torch}.exp(-{0})) ** 0.5).mean()", "spend gradients on examples that are still wrong"),
    "focal1": ("({0} * (1 - {torch}.exp(-{0}))).mean()", "spend gradients on examples that are still wrong"),
    "poly1": ("({0} + 1 - {torch}.exp(-{0})).mean()", "weigh the first term of the loss's expansion higher"),
    "hardest80": (
        "{0}.flatten().topk(max(1, {0}.numel() * 4 // 5)).values.mean()",
        "skip examples that are learnt already",
    ),
    "easiest95": (
        "{0}.flatten().topk(max(1, {0}.numel() * 19 // 20), largest=False).values.mean()",
        "ignore mislabelled examples",
    ),
}


def reshape_loss(program: Program) -> Iterator[Edit]:
    """The mean over examples gives way to one that weighs them.

    Focal loss (Lin et al. 2017), poly loss (Leng et al. 2022), means without the easiest or the hardest.
    """
    counts: Counter[str] = Counter()
    for module, call in program.losses:
        site, torch = numbered(module, counts, call, "cross_entropy"), module.reach("torch")
        given = {keyword.arg for keyword in call.keywords}
        if torch is None or not _can_hoist(module, call) or given & {"reduction", None}:
            continue
        name, start = module.fresh("losses"), module.span(call)[0]
        _, (at, _, argument) = with_argument(module, call, 'reduction="none"')
        inner = module.text(call).encode()
        single = inner[: at - start].decode() + argument + inner[at - start :].decode()
        for move, (template, reason) in _SHAPES.items():
            change = f"Weighing the losses of {shown(site)} as {move} instead of evenly"
            splices = (
                module.before(module.statement(call), f"{name} = {single}"),
                module.replace(call, template.format(name, torch=torch)),
            )
            yield Edit("reshape_loss", site, move, Domain.LOSS, change, reason, splices)


def z_loss(program: Program) -> Iterator[Edit]:
    """A penalty on the squared log-normaliser of the softmax (PaLM)."""
    counts: Counter[str] = Counter()
    for module, call in program.losses:
        site = numbered(module, counts, call, "cross_entropy")
        if not call.args or not _can_hoist(module, call) or isinstance(call.args[0], ast.Starred):
            continue
        logits, splices = module.text(call.args[0]), []
        if not isinstance(call.args[0], ast.Name):
            name = module.fresh("logits_once")
            splices = [
                module.before(module.statement(call), f"{name} = ({logits})"),
                module.replace(call.args[0], name),
            ]
            logits = name
        start, end = module.span(call)
        for weight in (1e-4, 1e-3, 1e-2):
            term = f" + {weight:g} * {logits}.logsumexp(dim=1).square().mean())"
            around = ((module.path, Splice(start, start, "(")), (module.path, Splice(end, end, term)))
            change = f"Adding {weight:g} times the squared log-normaliser to {shown(site)}"
            reason = "keep logits from drifting"
            yield Edit("z_loss", site, f"w{weight:g}", Domain.LOSS, change, reason, (*splices, *around), cost=1)


def _can_hoist(module: Module, call: ast.Call) -> bool:
    """Whether a line above the statement sees all that the call sees, and runs exactly when it does."""
    for above in module.ancestors(call):
        if isinstance(above, (ast.Lambda, ast.comprehension, ast.IfExp, ast.GeneratorExp, ast.ListComp, ast.BoolOp)):
            return False
        if isinstance(above, ast.stmt):
            return isinstance(above, (ast.Return, ast.Assign, ast.AnnAssign, ast.Expr)) and module.owns_lines(above)
    return False
