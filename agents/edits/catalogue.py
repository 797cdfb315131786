"""Which edits apply to a recipe, by domain."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from agents.edits import examples, layers, objective, optimizers, schedules, wiring
from agents.edits.constants import constant_edits
from agents.edits.edit import Edit
from agents.edits.source import Program
from ledger.recipes import Recipe
from ledger.vocabulary import Domain

Operators = Callable[[Program], Iterator[Edit]]

STRUCTURAL: dict[Domain, tuple[Operators, ...]] = {
    Domain.ARCH: (
        *layers.LAYER_OPERATORS,
        *wiring.WIRING_OPERATORS,
        lambda program: wiring.logits(program, Domain.ARCH),
    ),
    Domain.OPT: optimizers.OPTIMIZER_OPERATORS,
    Domain.SCHED: schedules.SCHEDULE_OPERATORS,
    Domain.REG: (wiring.dropout, lambda program: objective.label_smoothing(program, Domain.REG)),
    Domain.LOSS: (
        lambda program: objective.label_smoothing(program, Domain.LOSS),
        objective.reshape_loss,
        objective.z_loss,
        lambda program: wiring.logits(program, Domain.LOSS),
    ),
    Domain.DATA: examples.DATA_OPERATORS,
    Domain.QUANT: (examples.save_half,),
    Domain.EVAL: (examples.average_views,),
    Domain.SYS: (examples.channels_last,),
}


def edits(recipe: Recipe, domain: Domain, files: Sequence[str]) -> list[Edit]:
    """Edits of `recipe` in `domain` that touch none but `files`; equal arguments give the same list in the same order.

    A file that does not parse has no edits. Operators are unique within the list.
    """
    allowed = set(files)
    found: dict[str, Edit] = {}
    for edit in _all(tuple(sorted(recipe.files.items())), domain):
        if edit.files <= allowed:
            found.setdefault(str(edit.operator), edit)
    return list(found.values())


# A campaign asks again and again about its champion and few others.
@lru_cache(maxsize=32)
def _program(files: tuple[tuple[str, str], ...]) -> Program:
    return Program(dict(files))


@lru_cache(maxsize=256)
def _all(files: tuple[tuple[str, str], ...], domain: Domain) -> tuple[Edit, ...]:
    program = _program(files)
    structural = (edit for operator in STRUCTURAL.get(domain, ()) for edit in operator(program))
    return (*constant_edits(program, domain), *structural)
