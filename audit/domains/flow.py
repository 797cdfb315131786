"""Where a value goes: from a constant through fields, parameters and variables to the code that consumes it."""

import ast
import re
from itertools import pairwise

from audit.domains.canon import FUNCTIONS, Function
from audit.domains.matching import called
from audit.domains.names import LOGGING, domain_of_call, domain_of_name, snake
from audit.domains.program import Program
from audit.domains.roles import Roles
from audit.domains.votes import Trace, Votes
from audit.domains.words import assigns_loss, defaults_of, flag_before, flag_of, has_time, keys_of, target_word, word_of
from ledger.vocabulary import Domain

MAX_DEPTH = 7
MAX_READS = 60

_SHAPES = frozenset(
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
_OPTIONS = {
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
_GROUP_KEYS = frozenset({"lr", "momentum", "betas", "eps", "initial_lr", "weight_decay", "ns_steps", "nesterov"})
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
_WEAK_CALLS = frozenset(
    {"to", "save", "load", "write", "time", "contiguous", "cuda", "log", "encode", "log_softmax", "logsumexp", "tanh"}
)


class Flow:
    """Follows values through one program; nothing is executed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.roles = Roles(program)

    # --- from a place

    def at(self, node: ast.AST, trace: Trace, depth: int = 0) -> Votes:
        """Surfaces of whatever consumes the value of `node`: the role of the code around it, else followed."""
        role = self.roles.of(self.program.function_of(node))
        if role is None:
            return self.climb(node, trace, depth)
        if role is Domain.ARCH and depth:
            votes = self._handed_on(node, trace, depth)
            if votes:
                return votes
        domain = self.refine(role, node, trace)
        trace.readers.setdefault(domain, self.program.symbol_of(node))
        return Votes({domain: 1.0})

    def refine(self, role: Domain, node: ast.AST, trace: Trace) -> Domain:
        """The surface of one place inside a function whose surface as a whole is `role`."""
        around = self._around(node)
        self._note(node, around, trace)
        for above in around:
            if (
                isinstance(above, ast.keyword)
                and above.arg in _OPTIONS
                and role in (Domain.OPT, Domain.ARCH, Domain.LOSS, Domain.DATA)
            ):
                return _OPTIONS[above.arg]
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
                feeding = words and all(_OPTIONS.get(word) is Domain.SYS for word in words)
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
                case ast.Call() if called(above) in _SHAPES and below is not above.func:
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
        return domain if domain in (Domain.REG, Domain.QUANT) and name not in _WEAK_CALLS else None

    def _only_in_loss(self, node: ast.AST) -> bool:
        name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
        return domain_of_name(name) is Domain.LOSS

    # --- following

    def climb(self, node: ast.AST, trace: Trace, depth: int = 0) -> Votes:
        """Surfaces that the value of `node` reaches, from a place that has no surface of its own."""
        if depth > MAX_DEPTH:
            return Votes()
        timed, below = isinstance(node, ast.BinOp | ast.Compare | ast.IfExp) and has_time(node), node
        for above in self.program.ancestors(node):
            match above:
                case ast.Call(func=ast.Attribute(attr="backward")) if below is above.func:
                    return self._found(Domain.LOSS, above, trace)
                case ast.Call() if below is not above.func:
                    votes = self._argument(above, below, timed, trace, depth)
                    if votes is not None:
                        return votes
                case ast.BinOp() | ast.Compare():
                    timed = timed or has_time(above)
                    trace.shaped = trace.shaped or (timed and isinstance(above, ast.Compare) and not has_time(node))
                case ast.Dict() if below in above.values:
                    return self._key(above, below, timed, trace, depth)
                case ast.List() | ast.Tuple() if (flag := flag_before(above, below)) is not None:
                    return self.member(flag, trace, depth + 1)
                case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.NamedExpr() if below is above.value:
                    return self._assigned(above, timed, trace, depth)
                case ast.arguments():
                    function = self.program.parent[above]
                    name = next((name for name, default in defaults_of(above) if default is below), None)
                    return (
                        self.parameter(function, name, trace, depth + 1)
                        if isinstance(function, FUNCTIONS) and name
                        else Votes()
                    )
                case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if below is test:
                    trace.tested = True
                    if isinstance(above, ast.stmt):
                        return self._branch(above, timed)
                case ast.For(iter=found) if below is found:
                    trace.shaped = True
                    return self._loop(above)
                case ast.Return():
                    return Votes({Domain.SCHED: 1.0}) if timed else self._returned(above, trace, depth)
                case ast.stmt():
                    return Votes()
            below = above
        return Votes()

    def _argument(self, call: ast.Call, argument: ast.AST, timed: bool, trace: Trace, depth: int) -> Votes | None:
        """Surfaces of a call's argument; None where the value passes through the call."""
        name, keyword = called(call), argument.arg if isinstance(argument, ast.keyword) else None
        if name in LOGGING:
            return Votes()
        if keyword in _OPTIONS:
            return self._found(_OPTIONS[keyword], call, trace)
        if name in _SHAPES:
            trace.shaped = True
        if name == "add_argument":
            flag = flag_of(call)
            return self.member(flag, trace, depth + 1) if flag and keyword != "help" else Votes()
        own = self.program.callee(call)
        plain = own is not None and not isinstance(own, ast.ClassDef)
        if plain and timed and self.roles.of(own) in (None, Domain.DATA, Domain.OPT):  # type: ignore[arg-type]
            return self._found(Domain.SCHED, call, trace)
        if own is not None:
            return self._own_argument(own, call, argument, trace, depth)
        if name == "dict" and keyword:
            return self._named_key(keyword, timed, call, trace, depth)
        if keyword in _GROUP_KEYS:
            return self._found(Domain.SCHED if timed else Domain.OPT, call, trace)
        domain = domain_of_call(name)
        if domain is None and isinstance(call.func, ast.Name):
            # A function from outside the recipe: its name is all there is to see.
            domain = self.roles.of_name(name)
        if domain is None or name in _WEAK_CALLS:
            return None
        return self._found(domain, call, trace)

    def _own_argument(
        self, own: Function | ast.ClassDef, call: ast.Call, argument: ast.AST, trace: Trace, depth: int
    ) -> Votes | None:
        if (
            isinstance(own, ast.ClassDef)
            and self.roles.is_config(own)
            and isinstance(argument, ast.keyword)
            and argument.arg
        ):
            return self.member(argument.arg, trace, depth + 1)
        taken = self.program.parameter(own, call, argument)
        votes = self.parameter(*taken, trace, depth + 1) if taken is not None else Votes()
        role = self.roles.of_class(own) if isinstance(own, ast.ClassDef) else self.roles.of(own)
        if not votes and role is not None:
            return self._found(role, call, trace)
        return votes or None

    def _found(self, domain: Domain, node: ast.AST, trace: Trace) -> Votes:
        call = node if isinstance(node, ast.Call) else None
        where = (called(call) if call is not None else "") or self.program.symbol_of(node)
        trace.readers.setdefault(domain, where)
        return Votes({domain: 1.0})

    def _key(self, holder: ast.Dict, value: ast.AST, timed: bool, trace: Trace, depth: int) -> Votes:
        key = holder.keys[holder.values.index(value)] if isinstance(value, ast.expr) else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return self._named_key(key.value, timed, holder, trace, depth)
        return self.climb(holder, trace, depth + 1)

    def _named_key(self, key: str, timed: bool, holder: ast.AST, trace: Trace, depth: int) -> Votes:
        """A key of a dict: of an optimiser's parameter group, or of a configuration."""
        if key in _GROUP_KEYS and any(word == "params" for word in keys_of(holder)):
            return self._found(_OPTIONS.get(key, Domain.SCHED if timed else Domain.OPT), holder, trace)
        votes = self.member(key, trace, depth + 1)
        return votes or self.climb(holder, trace, depth + 1)

    def _assigned(
        self, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr, timed: bool, trace: Trace, depth: int
    ) -> Votes:
        votes: Votes = Votes()
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = target_word(target)
            if name is None:
                continue
            if isinstance(target, ast.Subscript) and name in _GROUP_KEYS:
                return self._found(_OPTIONS.get(name, Domain.SCHED if timed else Domain.OPT), node, trace)
            if timed and self.program.function_of(node) is not None:
                return self._found(Domain.SCHED, node, trace)
            if isinstance(target, ast.Name):
                votes.add(self.variable(name, node, trace, depth + 1))
                owner = self.program.parent.get(node)
                if isinstance(owner, ast.ClassDef):
                    votes.add(self.member(name, trace, depth + 1, owner))
            else:
                votes.add(self.member(name, trace, depth + 1))
        return votes

    def _branch(self, node: ast.If | ast.While, timed: bool) -> Votes:
        body = [*node.body, *node.orelse]
        if timed and any(isinstance(item, ast.Break) for item in body):
            return Votes({Domain.SCHED: 1.0})
        if isinstance(node, ast.While) and timed:
            return Votes({Domain.SCHED: 1.0})
        votes = self.content(body).normal()
        if timed and votes and max(votes, key=lambda d: votes[d]) in (Domain.OPT, Domain.SCHED, Domain.SYS):
            votes[Domain.SCHED] += 0.5
        return votes

    def _loop(self, node: ast.For) -> Votes:
        names = {called(call) for call in ast.walk(node) if isinstance(call, ast.Call)}
        if "backward" in names and "step" in names:
            # The training loop itself: its length is the schedule; the loop over micro-steps inside it is plumbing.
            return Votes({Domain.SCHED: 1.0})
        if "backward" in names:
            return Votes({Domain.SYS: 1.0})
        return self.content(node.body).normal()

    def _returned(self, node: ast.Return, trace: Trace, depth: int) -> Votes:
        function = self.program.function_of(node)
        votes: Votes = Votes()
        if function is None or (function, "return") in trace.seen:
            return votes
        trace.seen.add((function, "return"))
        for call in self.program.calls.get(function.name, ())[:MAX_READS]:
            votes.add(self.at(call, trace, depth + 1).normal())
        return votes

    def variable(self, name: str, near: ast.AST, trace: Trace, depth: int) -> Votes:
        """Surfaces that read a variable."""
        scope = self.program.function_of(near) or "module"
        if (scope, name) in trace.seen or depth > MAX_DEPTH:
            return Votes()
        trace.seen.add((scope, name))
        votes: Votes = Votes()
        for index, load in enumerate(self.program.reads(name, near)):
            if index >= MAX_READS:
                break
            votes.add(self.at(load, trace, depth).normal())
        return votes

    def member(self, name: str, trace: Trace, depth: int, owner: ast.ClassDef | None = None) -> Votes:
        """Surfaces that read a member of this name: of `owner` where it is given and types tell, else of any object."""
        key = snake(name)
        if ("member", key) in trace.seen or depth > MAX_DEPTH:
            return Votes()
        trace.seen.add(("member", key))
        votes: Votes = Votes()
        for node in self.program.members.get(key, ())[:MAX_READS]:
            if owner is None or self.program.may_belong(node, owner):
                votes.add(self.at(node, trace, depth).normal())
        return votes

    def parameter(self, function: Function, name: str, trace: Trace, depth: int) -> Votes:
        """Surfaces that a parameter of a function reaches."""
        if (function, name) in trace.seen or depth > MAX_DEPTH:
            return Votes()
        trace.seen.add((function, name))
        votes: Votes = Votes()
        for load in self.program.loads.get(name, ()):
            if function in self.program.ancestors(load):
                votes.add(self.at(load, trace, depth).normal())
        return votes

    def _handed_on(self, load: ast.AST, trace: Trace, depth: int) -> Votes:
        """Inside the model: a value stored on `self` unchanged, or handed to another module, is followed on."""
        statement = self.program.parent.get(load)
        match statement:
            case ast.Assign(targets=[ast.Attribute(attr=name, value=ast.Name(id="self"))]):
                stored = self.member_of_class(name, load, trace, depth + 1)
                if stored:
                    return stored
            case ast.Call() | ast.keyword():
                call = self.program.parent[statement] if isinstance(statement, ast.keyword) else statement
                if isinstance(call, ast.Call) and self.program.callee(call) is not None:
                    argument = statement if isinstance(statement, ast.keyword) else load
                    return self._argument(call, argument, False, trace, depth + 1) or Votes()
        return Votes()

    def member_of_class(self, name: str, near: ast.AST, trace: Trace, depth: int) -> Votes:
        """Surfaces that read `self.name` in the class around `near`."""
        owner = self.program.class_of(near)
        if (owner, name) in trace.seen or depth > MAX_DEPTH:
            return Votes()
        trace.seen.add((owner, name))
        votes: Votes = Votes()
        for node in self.program.members.get(snake(name), ())[:MAX_READS]:
            if owner is not None and owner in self.program.ancestors(node):
                votes.add(self.at(node, trace, depth).normal())
        return votes

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
                    and target_word(part) in _GROUP_KEYS
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
        return domain, 0.1 if name in _WEAK_CALLS or name in LOGGING else 0.4 if domain is Domain.SYS else 1.0
