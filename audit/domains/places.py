"""What one place in a program shows by itself: the names and calls around it, without following its value."""

import ast
import re
from itertools import pairwise

from audit.domains.canon import FUNCTIONS
from audit.domains.names import LOGGING, domain_of_call, domain_of_name, snake
from audit.domains.program import Program
from audit.domains.roles import Roles
from audit.domains.votes import Trace, Votes
from audit.domains.words import (
    assigns_loss,
    called,
    defaults_of,
    flag_before,
    flag_of,
    has_time,
    target_word,
    word_of,
)
from ledger.vocabulary import Domain

SHAPES = frozenset(
    {
        "Linear",
        "CastedLinear",
        "Conv1d",
        "Conv2d",
        "Embedding",
        "zeros",
        "ones",
        "empty",
        "full",
        "randn",
        "rand",
        "arange",
        "range",
    }
    | {
        "view",
        "reshape",
        "expand",
        "repeat",
        "split",
        "chunk",
        "unfold",
        "BatchNorm2d",
        "LayerNorm",
        "MaxPool2d",
        "linspace",
    }
)
# Options that mean one thing whatever optimiser, group or criterion they are given to.
OPTIONS = {
    "weight_decay": Domain.REG,
    "wd": Domain.REG,
    "label_smoothing": Domain.REG,
    "dropout": Domain.REG,
    "dropout_p": Domain.REG,
    "num_workers": Domain.SYS,
    "pin_memory": Domain.SYS,
    "prefetch_factor": Domain.SYS,
    "persistent_workers": Domain.SYS,
    "fused": Domain.SYS,
    "foreach": Domain.SYS,
    "non_blocking": Domain.SYS,
}
GROUP_KEYS = frozenset({"lr", "momentum", "betas", "eps", "initial_lr", "weight_decay", "ns_steps", "nesterov"})
_FEEDING = re.compile(r"threads|workers|prefetch|pin_memory")
_STRONG_LOSS = frozenset(
    {
        "cross_entropy",
        "nll_loss",
        "mse_loss",
        "kl_div",
        "CrossEntropyLoss",
        "binary_cross_entropy_with_logits",
        "linear_cross_entropy",
    }
)
WEAK_CALLS = frozenset(
    {"to", "save", "load", "write", "time", "contiguous", "cuda", "log", "encode", "log_softmax", "logsumexp", "tanh"}
)


class Places:
    """Reads places of one program; nothing is executed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.roles = Roles(program)

    def refine(self, role: Domain, node: ast.AST, trace: Trace) -> Domain:
        """The surface of one place inside a function whose surface as a whole is `role`."""
        around = self._around(node)
        self._note(node, around, trace)
        for above in around:
            if (
                isinstance(above, ast.keyword)
                and above.arg in OPTIONS
                and role in (Domain.OPT, Domain.ARCH, Domain.LOSS, Domain.DATA)
            ):
                return OPTIONS[above.arg]
        match role:
            case Domain.ARCH:
                return self._in_model(node, around)
            case Domain.OPT:
                words = self._words(node)
                decay = any(domain_of_name(word) is Domain.REG for word in words)
                return Domain.REG if decay and len(words) <= 4 else Domain.OPT
            case Domain.LOSS:
                return Domain.REG if any("smoothing" in word for word in self._words(node)) else Domain.LOSS
            case Domain.DATA:
                words = self._words(node)
                feeding = words and all(OPTIONS.get(word) is Domain.SYS for word in words)
                return Domain.SYS if feeding or _FEEDING.search(snake(self.target(node) or "")) else Domain.DATA
        return role

    def _around(self, node: ast.AST) -> list[ast.AST]:
        """`node` and what encloses it, up to its statement."""
        found: list[ast.AST] = [node]
        for above in self.program.ancestors(node):
            if isinstance(found[-1], ast.stmt) or isinstance(above, (*FUNCTIONS, ast.ClassDef, ast.Module)):
                break
            found.append(above)
        return found

    def _note(self, node: ast.AST, around: list[ast.AST], trace: Trace) -> None:
        for below, above in pairwise(around):
            match above:
                case ast.Attribute(attr="shape" | "size" | "dtype" | "device" | "ndim"):
                    # What is read is the form of a tensor; its values size nothing.
                    return
                case ast.Call() if called(above) in SHAPES and below is not above.func:
                    trace.shaped = True
                case ast.Slice():
                    trace.shaped = True
                case ast.Compare() | ast.BinOp(op=ast.Div()) if has_time(above) and not has_time(node):
                    # Training time is counted in steps: a bound on it is a number of steps.
                    trace.shaped = True
                case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if test is below:
                    trace.tested = True

    def _words(self, node: ast.AST) -> set[str]:
        """Identifiers in `node`, and the name that its value is given to."""
        found = {snake(word) for part in ast.walk(node) if (word := word_of(part))}
        target = self.target(node)
        return found | ({snake(target)} if target else set())

    def target(self, node: ast.AST) -> str | None:
        """The name under which the value of `node` goes on: a keyword, a key, a variable, a field, a parameter."""
        below = node
        for above in (node, *self.program.ancestors(node)):
            match above:
                case ast.keyword() if (
                    isinstance(call := self.program.parent.get(above), ast.Call) and called(call) == "add_argument"
                ):
                    return flag_of(call)
                case ast.keyword(arg=str(name)):
                    return name
                case ast.Dict() if below in above.values:
                    key = above.keys[above.values.index(below)]
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        return key.value
                case ast.List() | ast.Tuple() if (flag := flag_before(above, below)) is not None:
                    return flag
                case ast.Assign(targets=[target]) | ast.AnnAssign(target=target) | ast.AugAssign(target=target):
                    return target_word(target)
                case ast.arguments():
                    return next((name for name, default in defaults_of(above) if default is below), None)
                case ast.Call() if called(above) == "add_argument":
                    return flag_of(above)
                case ast.Call() if below is not above.func and (found := self.program.callee(above)) is not None:
                    taken = self.program.parameter(found, above, below)
                    if taken is not None:
                        return taken[1]
                case ast.stmt():
                    return None
            below = above
        return None

    # --- inside the model

    def _in_model(self, node: ast.AST, around: list[ast.AST]) -> Domain:
        for part in (*ast.walk(node), *around[1:]):
            if isinstance(part, ast.Call):
                domain = self._call_in_model(part)
                if domain is not None:
                    return domain
        words = self._words(node)
        if any(domain_of_name(word) is Domain.REG for word in words) and len(words) <= 6:
            return Domain.REG
        statement = around[-1]
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            target = target_word(statement.targets[0] if isinstance(statement, ast.Assign) else statement.target)
            if target and domain_of_name(target) is Domain.LOSS:
                return Domain.LOSS
        if isinstance(node, ast.stmt) and any(assigns_loss(part) for part in ast.walk(node)):
            return Domain.LOSS
        if isinstance(statement, ast.Return) and any(word == "loss" or word.endswith("_loss") for word in words):
            return Domain.LOSS
        if isinstance(node, ast.arg | ast.Name) and self._only_in_loss(node):
            return Domain.LOSS
        return Domain.ARCH

    def _call_in_model(self, call: ast.Call) -> Domain | None:
        name = called(call)
        if name in _STRONG_LOSS:
            return Domain.LOSS
        own = self.program.callee(call)
        if own is not None:
            role = self.roles.of_class(own) if isinstance(own, ast.ClassDef) else self.roles.of(own)
            return role if role in (Domain.LOSS, Domain.QUANT, Domain.REG) else None
        if name in ("checkpoint", "autocast", "compile"):
            return Domain.SYS
        domain = domain_of_call(name)
        return domain if domain in (Domain.REG, Domain.QUANT) and name not in WEAK_CALLS else None

    def _only_in_loss(self, node: ast.AST) -> bool:
        name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
        return domain_of_name(name) is Domain.LOSS

    # --- whole statements

    def content(self, body: list[ast.stmt]) -> Votes:
        """Surfaces of statements by what they call and name, from a place that has no surface of its own."""
        votes: Votes = Votes()
        for statement in body:
            for part in ast.walk(statement):
                if isinstance(part, ast.Call):
                    domain, weight = self._called(part)
                    if domain is not None:
                        votes[domain] += weight
                elif (
                    isinstance(part, ast.Subscript)
                    and isinstance(part.ctx, ast.Store)
                    and target_word(part) in GROUP_KEYS
                ):
                    votes[Domain.OPT] += 1.0
                elif word := word_of(part):
                    domain = domain_of_name(word)
                    if domain is not None:
                        votes[domain] += 0.3 if domain is not Domain.SYS else 0.1
        return votes

    def _called(self, call: ast.Call) -> tuple[Domain | None, float]:
        own, name = self.program.callee(call), called(call)
        if name in LOGGING:
            return Domain.SYS, 0.02
        if own is not None:
            role = self.roles.of_class(own) if isinstance(own, ast.ClassDef) else self.roles.of(own)
            return role, 1.5
        domain = domain_of_call(name)
        if domain is None and (named := self.roles.of_name(name)) is not None:
            return named, 2.0 if named is Domain.EVAL else 1.0
        return domain, 0.1 if name in WEAK_CALLS or name in LOGGING else 0.4 if domain is Domain.SYS else 1.0
