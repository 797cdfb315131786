"""`classify` and `same_program`: the edit between two recipe versions, attributed change by change."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from audit.domains.canon import DEFINITIONS, FUNCTIONS
from audit.domains.definitions import methods
from audit.domains.difference import Edit, edits
from audit.domains.flow import Flow
from audit.domains.kinds import kind_of, only_initialises
from audit.domains.matching import align
from audit.domains.names import LOGGING, domain_of_name, snake
from audit.domains.program import Program, parse
from audit.domains.report import CONSEQUENCE, Change, EditReport, Kind
from audit.domains.texts import text_changes
from audit.domains.votes import Trace, Votes
from audit.domains.words import called, target_word
from ledger.recipes import Recipe
from ledger.vocabulary import Domain

_METRIC = re.compile(
    r"(?:^|_)(?:eval|evaluate|validat\w*|metric|accuracy|acc|bpb|score|core|val_loss|bits_per_byte|nll)(?:_|$)", re.I
)
_BATCH = re.compile(r"(?:^|_)batch_(?:size|tokens)(?:_|$)|(?:^|_)(?:total|global)_batch")
_DEVICE_BATCH = re.compile(r"(?:device|micro|local)_batch")
_SEQUENCE = re.compile(r"seq_len|sequence_len")
_TALLY = re.compile(r"(?:^|_)(?:sum|count|total|nll|loss|losses|acc|accuracy|bpb|score|correct|metric|bytes)(?:_|$)")
MAX_SHOWN = 60


def classify(old: Recipe, new: Recipe) -> EditReport:
    """What the edit changed in the program. Never executes recipe code and never raises for what a file holds.

    A file that does not parse is named in `problems` and left out; other text files are attributed by the
    settings they hold.
    """
    try:
        return _classified(old, new)
    except (RecursionError, MemoryError):
        return EditReport.of((), ["the code is nested too deeply to be compared"])


def _classified(old: Recipe, new: Recipe) -> EditReport:
    before, faults = parse(old.files)
    after, more_faults = parse(new.files)
    unread = faults.keys() | more_faults.keys()
    trees = [{path: tree for path, tree in version.items() if path not in unread} for version in (before, after)]
    align(*trees)
    found = edits(*trees)
    after_flow = Flow(Program(trees[1]))
    # The old version is indexed only where something of it is gone.
    before_flow = Flow(Program(trees[0])) if any(edit.new is None for edit in found) else after_flow
    programs = before_flow, after_flow
    changes = [_Attribution(edit, *programs).change() for edit in found]
    changes = _with_followers(changes, found)
    changes += text_changes(old, new, programs[1])
    problems = [*faults.values(), *(text for path, text in more_faults.items() if path not in faults)]
    return EditReport.of(_merged(changes), problems)


def same_program(old: Recipe, new: Recipe) -> bool:
    """Whether both are one program up to comments, formatting, renamed locals, moved definitions and dead code.

    Files that are not Python, or do not parse, must be equal as text.
    """
    before, faults = parse(old.files)
    after, more_faults = parse(new.files)
    plain = old.files.keys() - before.keys() | new.files.keys() - after.keys() | faults.keys() | more_faults.keys()
    if any(old.files.get(path) != new.files.get(path) for path in plain):
        return False
    align(before, after)
    return not edits(before, after)


class _Attribution:
    """One edit on its way to a change."""

    def __init__(self, edit: Edit, before: Flow, after: Flow) -> None:
        self.edit = edit
        self.node: ast.AST = edit.new if edit.new is not None else edit.old  # type: ignore[assignment]
        self.flow = after if edit.new is not None else before
        self.trace = Trace()

    def change(self) -> Change:
        votes = self._votes()
        domain = max(votes, key=lambda d: (votes[d] * CONSEQUENCE[d], d), default=self._guess())
        domain = self._settled(domain, votes)
        kind = kind_of(self.edit, domain, self.flow, self.trace)
        first = getattr(self.node, "lineno", None) or self._line()
        return Change(
            file=self.edit.file,
            symbol=self._symbol(),
            domain=domain,
            kind=kind,
            evidence=self._evidence(domain),
            lines=(first, getattr(self.node, "end_lineno", None) or first),
            old=_source(self.edit.old),
            new=_source(self.edit.new),
            forward=domain is Domain.ARCH and self._is_forward(),
            follows=isinstance(self.node, ast.arg),
            measuring=self._is_measuring(domain),
        )

    def _settled(self, domain: Domain, votes: Votes) -> Domain:
        """Constants that several surfaces read, and that the field counts to one of them."""
        name = snake(self.flow.target(self.node) or "")
        if domain is Domain.EVAL or self._role() is not None:
            return domain
        if _DEVICE_BATCH.search(name):
            return Domain.SYS
        if _BATCH.search(name):
            return Domain.SCHED
        if _SEQUENCE.search(name) and Domain.DATA in votes:
            return Domain.DATA
        if domain is Domain.SCHED and votes[Domain.OPT] and domain_of_name(name) is not Domain.SCHED:
            # The peak that a schedule scales: how high is the optimiser's, how long the schedule's.
            return Domain.OPT
        return domain

    def _votes(self) -> Votes:
        node, flow = self.node, self.flow
        role = self._role()
        if role is not None:
            return _one(role)
        if isinstance(node, FUNCTIONS):
            return flow.content(node.body)
        if isinstance(node, ast.ClassDef):
            return flow.content([item for item in node.body if not isinstance(item, FUNCTIONS)])
        if isinstance(node, ast.arg):
            function = flow.program.function_of(node) or flow.program.parent[flow.program.parent[node]]
            assert isinstance(function, FUNCTIONS)
            return flow.parameter(function, node.arg, self.trace, 0)
        if isinstance(node, ast.stmt):
            return self._statement(node)
        below = node.value if isinstance(node, ast.keyword) else node
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            return flow.variable(node.id, node, self.trace, 0)
        votes = flow.climb(below, self.trace)
        return votes if votes else self._statement_around()

    def _role(self) -> Domain | None:
        """The surface of the function or class that the edit stands in, or is."""
        node, flow = self.node, self.flow
        if isinstance(node, ast.ClassDef):
            return flow.roles.of_class(node)
        if isinstance(node, FUNCTIONS):
            role = flow.roles.of(node)
            return None if role is None else role
        decorated = flow.program.parent.get(node)
        if isinstance(decorated, DEFINITIONS) and node in decorated.decorator_list:
            return Domain.SYS
        if isinstance(decorated, ast.ClassDef) and node in decorated.bases:
            return flow.roles.of_class(decorated)
        if isinstance(node, ast.arg):
            return None
        function = flow.program.function_of(node)
        role = flow.roles.of(function)
        if role is None and self._is_tally():
            return Domain.EVAL
        if role is None or (function is not None and isinstance(flow.program.parent.get(node), ast.arguments)):
            return None
        return self._inside(role)

    def _is_tally(self) -> bool:
        """Whether it stands in what a measured value is computed from, in code that does a bit of everything."""
        match self.flow.program.statement_of(self.node):
            case ast.Assign(targets=[target], value=value) | ast.AugAssign(target=target, value=value):
                name = snake(target_word(target) or "")
                measured = domain_of_name(name) is Domain.EVAL and _TALLY.search(name) is not None
                return measured and any(isinstance(part, ast.Call) for part in ast.walk(value))
        return False

    def _inside(self, role: Domain) -> Domain:
        """A place inside a function that has a surface; a plain value in a model's constructor is followed on."""
        node, flow = self.node, self.flow
        domain = flow.refine(role, node, self.trace)
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and called(node.value) in LOGGING
            and domain is not Domain.EVAL
        ):
            return Domain.SYS
        if domain is Domain.ARCH and isinstance(node, ast.expr | ast.Assign):
            value = node.value if isinstance(node, ast.Assign) else node
            votes = (
                flow.climb(value if isinstance(value, ast.expr) else node, self.trace)
                if self._is_in_constructor()
                else Votes()
            )
            strong = {d: w for d, w in votes.items() if d in (Domain.REG, Domain.LOSS, Domain.QUANT)}
            if strong and Domain.ARCH not in votes:
                return max(strong, key=lambda d: strong[d])
        inner = node.value if isinstance(node, ast.keyword) else node
        if isinstance(inner, ast.expr):
            # For the trace only: whether the value sizes something or decides a branch further on.
            flow.climb(inner, self.trace)
        return domain

    def _is_in_constructor(self) -> bool:
        function = self.flow.program.function_of(self.node)
        return function is not None and function.name == "__init__"

    def _statement(self, node: ast.stmt) -> Votes:
        flow = self.flow
        votes: Votes = Votes()
        match node:
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) | ast.AugAssign(value=value):
                followed = flow.climb(value, self.trace)
                holder = flow.program.parent.get(node)
                if isinstance(holder, ast.ClassDef | ast.Module) and followed:
                    return followed
                votes.add(followed, 2.0)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    votes.add(flow.variable((alias.asname or alias.name).partition(".")[0], node, self.trace, 0))
                return votes
        votes.add(flow.content([node]).normal(), 1.0)
        return votes

    def _statement_around(self) -> Votes:
        statement = self.flow.program.statement_of(self.node)
        if statement is None or isinstance(statement, DEFINITIONS):
            return Votes()
        if isinstance(statement, ast.If | ast.For | ast.While | ast.With):
            return self.flow.content([ast.Expr(self.node)] if isinstance(self.node, ast.expr) else [])
        own = (
            self.flow.content([ast.copy_location(ast.Expr(self.node), statement)])
            if isinstance(self.node, ast.expr)
            else Votes()
        )
        return own or self._statement(statement)

    def _guess(self) -> Domain:
        """Where nothing shows what it feeds, the name decides."""
        words = [self.flow.target(self.node) or "", *self._symbol().split(".")[-1:]]
        words += [part.id for part in ast.walk(self.node) if isinstance(part, ast.Name)]
        return next((domain for word in words if (domain := domain_of_name(word)) is not None), Domain.SYS)

    def _symbol(self) -> str:
        """Where it stands, with the field or variable that gets the value."""
        base = self.edit.symbol or self.flow.program.symbol_of(self.node)
        name = self.flow.target(self.node)
        if isinstance(self.node, DEFINITIONS) or not name or base.rpartition(".")[2] == name or f"({name})" in base:
            return base or name or "<module>"
        return f"{base}.{name}" if base else name

    def _is_forward(self) -> bool:
        """Whether it changes what the model computes, beyond initial values and bookkeeping."""
        node, flow = self.node, self.flow
        if isinstance(node, DEFINITIONS):
            return not (isinstance(node, FUNCTIONS) and flow.roles.is_init(node))
        function = flow.program.function_of(node)
        if function is not None and flow.roles.of(function) is Domain.ARCH:
            if flow.roles.is_init(function):
                return False
            statement = flow.program.statement_of(node)
            return statement is None or isinstance(statement, DEFINITIONS) or not only_initialises(statement, flow)
        return True

    def _is_measuring(self, domain: Domain) -> bool:
        """Whether it stands in code that computes or prints the metric."""
        function = self.flow.program.function_of(self.node)
        names = [
            above.name for above in (self.node, *self.flow.program.ancestors(self.node)) if isinstance(above, FUNCTIONS)
        ]
        if domain is Domain.EVAL and any(_METRIC.search(name) for name in names):
            touched = self.flow.program.statement_of(self.node) or self.node
            return not isinstance(self.node, ast.Constant) and any(_TALLY.search(word) for word in _words(touched))
        call = self.node.value if isinstance(self.node, ast.Expr) else self.node
        statement = self.flow.program.statement_of(self.node)
        if (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and called(statement.value) in LOGGING
        ):
            call = statement.value
        printed = isinstance(call, ast.Call) and called(call) in LOGGING
        return printed and function is not self.node and bool(_METRIC.search(_source(call) or ""))

    def _evidence(self, domain: Domain) -> str:
        old, new = _source(self.edit.old), _source(self.edit.new)
        if isinstance(self.node, DEFINITIONS):
            word = "class" if isinstance(self.node, ast.ClassDef) else "function"
            fate = "added" if old is None else "removed" if new is None else "replaced"
            what = f"{word} {self.node.name} {fate}"
        elif old is None:
            what = f"added `{new}`"
        elif new is None:
            what = f"removed `{old}`"
        else:
            what = f"`{old}` -> `{new}`"
        reader = self.trace.readers.get(domain)
        return f"{what}, feeds {reader}" if reader and reader not in self._symbol() else what

    def _line(self) -> int:
        around = [
            above.lineno for above in self.flow.program.ancestors(self.node) if isinstance(above, ast.stmt | ast.expr)
        ]
        return around[0] if around else 1


def _words(node: ast.AST) -> set[str]:
    return {
        word for part in ast.walk(node) if isinstance(word := getattr(part, "id", getattr(part, "attr", None)), str)
    }


def _one(domain: Domain) -> Votes:
    return Votes({domain: 1.0})


def _source(node: ast.AST | None) -> str | None:
    if node is None:
        return None
    if isinstance(node, DEFINITIONS):
        return node.name
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


# --- what belongs together


def _merged(changes: list[Change]) -> list[Change]:
    """One change where the same thing was said twice about one symbol and line."""
    found: dict[tuple[object, ...], Change] = {}
    for change in changes:
        found.setdefault((change.file, change.symbol, change.evidence, change.lines), change)
    return list(found.values())


def _with_followers(changes: list[Change], found: list[Edit]) -> list[Change]:
    """Mark changes that only serve the new or removed parts of a structural change in the model or the loss."""
    names = set(_introduced(found))
    core = [
        change
        for change in changes
        if change.kind is Kind.STRUCTURAL and change.domain in (Domain.ARCH, Domain.LOSS) and not change.follows
    ]
    if not core or not names:
        return changes
    return [
        replace(change, follows=True) if change not in core and names & _mentioned(edit) else change
        for change, edit in zip(changes, found, strict=True)
    ]


def _mentioned(edit: Edit) -> set[str]:
    """Every identifier and string in an edit, and the name of what it changes."""
    found = set(edit.symbol.split("."))
    for side in (edit.old, edit.new):
        for node in ast.walk(side) if side is not None else ():
            match node:
                case (
                    ast.Name(id=word)
                    | ast.Attribute(attr=word)
                    | ast.Constant(value=str(word))
                    | ast.keyword(arg=str(word))
                ):
                    found.add(word)
    return found


def _introduced(found: list[Edit]) -> Iterator[str]:
    """Names that one side alone defines: members, functions, classes, parameters, settings."""
    for edit in found:
        if edit.old is not None and edit.new is not None:
            continue
        for node in ast.walk(edit.new or edit.old or ast.Pass()):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                    if name not in ("self", "x"):
                        yield name
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) if node is (edit.new or edit.old):
                    yield name
                case ast.AnnAssign(target=ast.Name(id=name)):
                    yield name
            if isinstance(node, ast.ClassDef):
                yield from methods(node).keys() & {"step"}
