"""What kind of number a constant is, and what may be hoped of moving it up or down."""

import re
from collections.abc import Sequence
from enum import StrEnum

from ledger.vocabulary import Domain

Number = int | float


class Role(StrEnum):
    """Decides which steps make sense."""

    SCALE = "scale"
    OFF = "off"
    COMPLEMENT = "complement"
    """Close to one, and its distance to one counts: momentum, decay of an average."""
    PROBABILITY = "probability"
    KERNEL = "kernel"
    HEADS = "heads"
    WIDTH = "width"
    COUNT = "count"
    LENGTH = "length"
    BATCH = "batch"


def role_of(name: str, value: Number, domains: Sequence[Domain]) -> Role:
    """Role of a number, from its name, its size and its domains."""
    word = name.lower()
    if value == 0:
        return Role.COUNT if isinstance(value, int) and Domain.DATA in domains else Role.OFF
    if isinstance(value, float):
        if 0.5 <= value < 1 and re.search(r"momentum|beta|ema|average|decay$", word):
            return Role.COMPLEMENT
        if 0 < value < 1 and re.search(r"drop|prob|share|frac|smooth|momentum|ratio|factor", word):
            return Role.PROBABILITY
        return Role.LENGTH if re.search(r"epoch", word) else Role.SCALE
    if "kernel" in word:
        return Role.KERNEL
    if "head" in word and "dim" not in word:
        return Role.HEADS
    if "batch" in word and value >= 4:
        return Role.BATCH
    if Domain.SCHED in domains and value >= 5:
        return Role.LENGTH
    if Domain.DATA in domains and value >= 16:
        return Role.LENGTH
    if value < 8:
        return Role.COUNT
    return Role.WIDTH if Domain.ARCH in domains else Role.SCALE


_REASONS: dict[tuple[Role | Domain, int], str] = {
    (Role.KERNEL, 1): "let each unit see a larger neighbourhood",
    (Role.KERNEL, -1): "save time where neighbours add little",
    (Role.HEADS, 1): "let the network attend to more things at once",
    (Role.HEADS, -1): "give each head more room",
    (Role.WIDTH, 1): "give the network capacity that it lacks",
    (Role.WIDTH, -1): "save time and weights that the data do not need",
    (Role.BATCH, 1): "give gradients with less noise",
    (Role.BATCH, -1): "take more steps over the same data",
    (Role.COMPLEMENT, 1): "average over more steps",
    (Role.COMPLEMENT, -1): "react faster in a short run",
    (Domain.ARCH, 1): "make the network more expressive",
    (Domain.ARCH, -1): "make the network easier to train in the time there is",
    (Domain.OPT, 1): "cover more ground in a short run",
    (Domain.OPT, -1): "follow the gradient with less noise",
    (Domain.SCHED, 1): "spend the steps where they lower the loss most",
    (Domain.SCHED, -1): "save steps, or move them to where they lower the loss most",
    (Domain.REG, 1): "narrow the gap between training and unseen data",
    (Domain.REG, -1): "let the network fit more in a short run",
    (Domain.LOSS, 1): "put more weight on what the metric asks for",
    (Domain.LOSS, -1): "bring the loss closer to the metric",
    (Domain.DATA, 1): "show the network more variety",
    (Domain.DATA, -1): "keep training data closer to what is measured",
    (Domain.QUANT, 1): "lose less of the weights' precision",
    (Domain.QUANT, -1): "save bytes that can be spent elsewhere",
    (Domain.EVAL, 1): "bring predictions closer to what is measured",
    (Domain.EVAL, -1): "bring predictions closer to what is measured",
    (Domain.SYS, 1): "use the machine better",
    (Domain.SYS, -1): "use the machine better",
}


def reason_for(role: Role, domain: Domain, sign: int) -> str:
    """What may be hoped of moving a number of this role up (+1) or down (-1)."""
    return _REASONS.get((role, sign)) or _REASONS[domain, sign]
