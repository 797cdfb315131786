"""Where a value goes: from a constant through fields, parameters and variables to the code that consumes it."""

import ast

from audit.domains.canon import FUNCTIONS, Function
from audit.domains.names import LOGGING, domain_of_call, snake
from audit.domains.places import GROUP_KEYS, OPTIONS, SHAPES, WEAK_CALLS, Places
from audit.domains.votes import Trace, Votes
from audit.domains.words import (
    called,
    defaults_of,
    flag_before,
    flag_of,
    has_time,
    keys_of,
    target_word,
)
from ledger.vocabulary import Domain

MAX_DEPTH = 7
MAX_READS = 60


class Flow(Places):
    """Follows values through one program; nothing is executed."""

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
        if keyword in OPTIONS:
            return self._found(OPTIONS[keyword], call, trace)
        if name in SHAPES:
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
        if keyword in GROUP_KEYS:
            return self._found(Domain.SCHED if timed else Domain.OPT, call, trace)
        domain = domain_of_call(name)
        if domain is None and isinstance(call.func, ast.Name):
            # A function from outside the recipe: its name is all there is to see.
            domain = self.roles.of_name(name)
        if domain is None or name in WEAK_CALLS:
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
        if key in GROUP_KEYS and any(word == "params" for word in keys_of(holder)):
            return self._found(OPTIONS.get(key, Domain.SCHED if timed else Domain.OPT), holder, trace)
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
            if isinstance(target, ast.Subscript) and name in GROUP_KEYS:
                return self._found(OPTIONS.get(name, Domain.SCHED if timed else Domain.OPT), node, trace)
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
