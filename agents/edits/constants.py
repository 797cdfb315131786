"""Edits of numbers: constants, defaults, keyword arguments and entries of dictionaries, moved by sensible steps."""

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from agents.edits.attribution import FIXED, dictated, domains_of, named_domains
from agents.edits.edit import Edit
from agents.edits.moves import grain, rounded, steps
from agents.edits.roles import Number, Role, reason_for, role_of
from agents.edits.source import NN, OPTIM, Module, Program
from ledger.vocabulary import Domain


@dataclass(frozen=True)
class Site:
    """A number in the source that may be moved."""

    module: Module
    name: str
    place: str
    node: ast.expr
    """What the new literal replaces."""
    value: Number
    domains: tuple[Domain, ...]
    whole_tuple: ast.Tuple | ast.List | None = None
    """The tuple, where the site is one element of it."""

    @property
    def role(self) -> Role:
        """What kind of number it is."""
        return role_of(self.name, self.value, self.domains)


def number_in(node: ast.expr) -> Number | None:
    """Value of an arithmetic expression over literals; None for anything else."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = number_in(operand)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=op, right=right):
            first, second = number_in(left), number_in(right)
            return None if first is None or second is None else _computed(op, first, second)
    return None


def _computed(op: ast.operator, first: Number, second: Number) -> Number | None:
    try:
        match op:
            case ast.Add():
                return first + second
            case ast.Sub():
                return first - second
            case ast.Mult():
                return first * second
            case ast.Div():
                return first / second
            case ast.FloorDiv():
                return first // second
            case ast.Pow() if abs(first) < 1e4 and abs(second) < 64:
                return float(first) ** second if second < 0 else int(first**second) if _whole(first) else first**second
    except (ArithmeticError, ValueError, TypeError):
        # A recipe that divides by zero is not edited there.
        return None
    return None


def _whole(value: Number) -> bool:
    return isinstance(value, int)


def literal(value: Number, like: str) -> str:
    """`value` as source, in the exponent or decimal style of `like`."""
    if isinstance(value, int):
        return str(value)
    # Close to one, the distance to one is what counts.
    rounded = 1 - float(f"{1 - value:.3g}") if 0.9 < value < 1 else float(f"{value:.3g}")
    rounded = float(f"{rounded:.10g}")
    if "e" in like.lower() or (rounded != 0 and abs(rounded) < 1e-3):
        mantissa, _, exponent = f"{rounded:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return repr(rounded)


@lru_cache(maxsize=32)
def sites(program: Program) -> tuple[Site, ...]:
    """Every number that may be moved, in order of file and line."""
    return tuple(_sites(program))


def _sites(program: Program) -> Iterator[Site]:
    for module in program.modules:
        counts: Counter[str] = Counter()
        assigned = Counter(name for node in module.nodes for name, _ in _assignments(node))
        for node in module.nodes:
            for name, value in _definitions(module, node, assigned):
                if FIXED.search(name.lower()) or name in dictated(program):
                    continue
                domains = domains_of(program, module, name, value)
                if not domains:
                    continue
                place = _place(module, value, node, name)
                counts[place] += 1
                place = place if counts[place] == 1 else f"{place}#{counts[place]}"
                if isinstance(value, (ast.Tuple, ast.List)):
                    yield from _elements(module, name, place, value, domains)
                elif (number := number_in(value)) is not None and number >= 0:
                    yield Site(module, name, place, value, number, domains)


def _place(module: Module, value: ast.expr, node: ast.AST, name: str) -> str:
    if not isinstance(node, ast.Call):
        return module.place(node, name)
    function = node.func
    callee = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "call")
    return module.place(value, f"{callee}.{name}")


def _elements(
    module: Module, name: str, place: str, value: ast.Tuple | ast.List, domains: tuple[Domain, ...]
) -> Iterator[Site]:
    for index, element in enumerate(value.elts):
        if (number := number_in(element)) is not None and number >= 0:
            yield Site(module, name, f"{place}[{index}]", element, number, domains, value)


def _assignments(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """(name, value) that an assignment binds; value is not looked at."""
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            return [(name, value)]
        case ast.AugAssign(target=ast.Name(id=name), value=value):
            return [(name, value)]
    return []


def _definitions(module: Module, node: ast.AST, assigned: Counter[str]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of the numbers that a node defines."""
    match node:
        case ast.Assign() | ast.AnnAssign():
            for name, value in _assignments(node):
                # A name bound twice is a counter or a running value, not a setting.
                if assigned[name] == 1 and (name.isupper() or named_domains(name)):
                    yield name, value
        case ast.Call(func=function, keywords=keywords):
            full = module.full(function)
            if full.startswith((f"{NN}.", f"{OPTIM}.")):
                yield from (
                    (keyword.arg, keyword.value) for keyword in keywords if keyword.arg not in (None, "dim", "dims")
                )
            elif full.endswith("add_argument"):
                yield from _argument(node)
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                match key:
                    case ast.Constant(value=str(name)) if named_domains(name):
                        yield name, value
        case ast.FunctionDef(args=arguments):
            yield from _defaults(arguments)


def _argument(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    match call.args:
        case [ast.Constant(value=str(flag)), *_]:
            name = flag.lstrip("-").replace("-", "_")
            defaults = (keyword.value for keyword in call.keywords if keyword.arg == "default")
            yield from ((name, value) for value in defaults if named_domains(name))


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    pairs = [
        *zip(positional, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    yield from ((argument.arg, value) for argument, value in pairs if value is not None and named_domains(argument.arg))


def constant_edits(program: Program, domain: Domain) -> Iterator[Edit]:
    """Moves of every number of a domain."""
    found = [site for site in sites(program) if domain in site.domains]
    multiple = _multiple(program)
    for site in found:
        yield from _moves(program, site, domain, multiple)
    yield from _tuple_edits(found, domain)
    yield from _flag_edits(program, domain)


def _multiple(program: Program) -> int:
    """What a width must stay divisible by: twice the number of heads, where a constant tells it."""
    heads = [
        value
        for module in program.modules
        for node in module.nodes
        for name, node_value in _assignments(node)
        if "head" in name.lower()
        and "dim" not in name.lower()
        and isinstance(value := number_in(node_value), int)
        and value > 0
    ]
    return 2 * math.lcm(*heads) if heads and math.lcm(*heads) <= 64 else 1


def _moves(program: Program, site: Site, domain: Domain, multiple: int) -> Iterator[Edit]:
    seen = {site.value}
    for move, value in steps(site.name, site.value, site.role, site.domains, multiple):
        if value in seen or not _keeps_order(site, value):
            continue
        if float(literal(value, site.module.text(site.node))) == site.value:
            continue
        seen.add(value)
        yield _edit(program, site, domain, move, value)


def _keeps_order(site: Site, value: Number) -> bool:
    """A tuple of small numbers that rises throughout, such as offsets or lengths, may need to, from its first on."""
    if site.whole_tuple is None or site.role is not Role.COUNT:
        return True
    before = [number_in(element) for element in site.whole_tuple.elts]
    after = [value if element is site.node else number_in(element) for element in site.whole_tuple.elts]
    return not _rises(before) or (_rises(after) and (site.node is not site.whole_tuple.elts[0] or value > site.value))


def _rises(values: Sequence[Number | None]) -> bool:
    return all(first is not None and second is not None and first < second for first, second in pairwise(values))


def _edit(program: Program, site: Site, domain: Domain, move: str, value: Number) -> Edit:
    old = site.module.text(site.node)
    new = literal(value, old)
    family = "enable_constant" if site.value == 0 else "scale_constant" if move.startswith("x") else "shift_constant"
    verb = {"enable_constant": "Switching on", "scale_constant": "Scaling", "shift_constant": "Moving"}[family]
    sign = 1 if value > site.value else -1
    shown = site.place.split(":", 1)[1]
    return Edit(
        family=family,
        site=site.place,
        move=move,
        domain=domain,
        change=f"{verb} {shown} ({site.module.path}) from {old} to {new}",
        reason=reason_for(site.role, domain, sign),
        splices=(site.module.replace(site.node, new),),
        cost=_cost(program, site, sign),
        size=_size(site, domain, sign),
    )


def _size(site: Site, domain: Domain, sign: int) -> int:
    if domain is Domain.QUANT:
        return sign if "bits" in site.name.lower() else 0
    return sign if domain is Domain.ARCH and site.role in (Role.WIDTH, Role.KERNEL, Role.COUNT) else 0


def _cost(program: Program, site: Site, sign: int) -> int:
    if site.module.is_inference or (site.role is Role.LENGTH and re.search(r"warm|cool|decay", site.name.lower())):
        return 0
    if site.role in (Role.WIDTH, Role.KERNEL, Role.LENGTH) or (site.role is Role.COUNT and Domain.ARCH in site.domains):
        return sign
    if site.role is Role.BATCH:
        # Counted in epochs, larger batches mean fewer steps; counted in steps, each of them costs more.
        counted_in_epochs = any("epoch" in word.lower() for module in program.modules for word in module.words)
        return -sign if counted_in_epochs else sign
    return 0


def _tuple_edits(found: Sequence[Site], domain: Domain) -> Iterator[Edit]:
    """A tuple of whole numbers that shapes the network grows or shrinks at its end, or as a whole."""
    for site in found:
        whole = site.whole_tuple
        if whole is not None and site.node is whole.elts[-1] and site.role is Role.WIDTH:
            yield from _scaled_tuples(site, whole, domain)
        if (
            whole is None
            or site.node is not whole.elts[-1]
            or domain is not Domain.ARCH
            or not isinstance(site.value, int)
        ):
            continue
        module, old = site.module, [site.module.text(element) for element in whole.elts]
        place = site.place.rsplit("[", 1)[0]
        for move, items in (("+1", [*old, _continued(whole, old)]), ("-1", old[:-1])):
            if not items:
                continue
            inner = ", ".join(items)
            text = f"[{inner}]" if isinstance(whole, ast.List) else f"({inner}{',' if len(items) == 1 else ''})"
            deeper = move == "+1"
            yield Edit(
                family="resize_tuple",
                site=place,
                move=move,
                domain=domain,
                change=f"{'Lengthening' if deeper else 'Shortening'} {site.name} ({module.path}) to {text}",
                reason="let the network compose more features" if deeper else "save the time of a whole stage",
                splices=(module.replace(whole, text),),
                cost=1 if deeper else -1,
                size=1 if deeper else -1,
            )


def _continued(whole: ast.Tuple | ast.List, old: Sequence[str]) -> str:
    """What comes after the last item: the next of a rising sequence of small numbers, else the last again."""
    values = [number_in(element) for element in whole.elts]
    match values[-2:]:
        case [int(before), int(last)] if before < last < 32 and len(values) > 2:
            return str(2 * last - before)
    return old[-1]


def _scaled_tuples(site: Site, whole: ast.Tuple | ast.List, domain: Domain) -> Iterator[Edit]:
    old = [number_in(element) for element in whole.elts]
    widths = [value for value in old if isinstance(value, int)]
    if len(widths) < len(old):
        return
    for factor in (0.5, 0.75, 1.25, 1.5):
        new = [rounded(width * factor, grain(width)) for width in widths]
        text = f"[{', '.join(map(str, new))}]" if isinstance(whole, ast.List) else f"({', '.join(map(str, new))},)"
        text = text.replace(",)", ")") if len(new) > 1 else text
        sign = 1 if factor > 1 else -1
        if new == widths:
            continue
        yield Edit(
            family="scale_constant",
            site=f"{site.place.rsplit('[', 1)[0]}[*]",
            move=f"x{factor:g}",
            domain=domain,
            change=f"Scaling all of {site.name} ({site.module.path}) from {site.module.text(whole)} to {text}",
            reason=reason_for(Role.WIDTH, domain, sign),
            splices=(site.module.replace(whole, text),),
            cost=sign,
            size=sign,
        )


def _flag_edits(program: Program, domain: Domain) -> Iterator[Edit]:
    """Switches: module constants and keyword arguments that are True or False."""
    for module in program.modules:
        counts: Counter[str] = Counter()
        assigned = Counter(name for node in module.nodes for name, _ in _assignments(node))
        for node in module.nodes:
            for name, value in _definitions(module, node, assigned):
                if not (isinstance(value, ast.Constant) and isinstance(value.value, bool)):
                    continue
                place = _place(module, value, node, name)
                counts[place] += 1
                if domain not in domains_of(program, module, name, value) or name in _TALKING_FLAGS:
                    continue
                new = not value.value
                yield Edit(
                    family="toggle_flag",
                    site=place if counts[place] == 1 else f"{place}#{counts[place]}",
                    move="on" if new else "off",
                    domain=domain,
                    change=f"Turning {place.split(':', 1)[1]} ({module.path}) {'on' if new else 'off'}",
                    reason="fit the data better" if new else "cost less and lose nothing",
                    splices=(module.replace(value, str(new)),),
                )


_TALKING_FLAGS = frozenset(
    {
        "inplace",
        "keepdim",
        "align_corners",
        "set_to_none",
        "fused",
        "foreach",
        "capturable",
        "maximize",
        "batch_first",
        "is_causal",
        "training",
    }
)
"""Switches that decide how something is computed, or whether it is legal, and not what is learnt."""
