"""One program edit: what it changes, why that may help, and the splices that carry it out."""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ledger.recipes import Recipe
from ledger.vocabulary import Domain


@dataclass(frozen=True)
class Family:
    """A kind of edit, with what is believed of it before any trial."""

    prior: float
    """Share of its trials expected to help: the mean of the bandit's prior."""
    gain: float
    """Relative change of the metric expected of one that helps."""


FAMILIES: dict[str, Family] = {
    "scale_constant": Family(0.30, 0.003),
    "shift_constant": Family(0.25, 0.003),
    "resize_tuple": Family(0.15, 0.004),
    "enable_constant": Family(0.20, 0.002),
    "toggle_flag": Family(0.20, 0.002),
    "set_argument": Family(0.20, 0.002),
    "swap_activation": Family(0.25, 0.003),
    "swap_norm": Family(0.15, 0.003),
    "remove_norm": Family(0.10, 0.005),
    "norm_before_linear": Family(0.20, 0.003),
    "qk_norm": Family(0.30, 0.004),
    "residual": Family(0.20, 0.004),
    "residual_gain": Family(0.20, 0.002),
    "swap_pooling": Family(0.20, 0.003),
    "zero_init": Family(0.25, 0.003),
    "scale_init": Family(0.20, 0.002),
    "orthogonal_init": Family(0.25, 0.003),
    "tie_weights": Family(0.15, 0.003),
    "add_block": Family(0.20, 0.004),
    "softcap": Family(0.15, 0.001),
    "logit_gain": Family(0.20, 0.002),
    "swap_optimizer": Family(0.25, 0.006),
    "clip_gradient": Family(0.20, 0.002),
    "centralise_gradient": Family(0.20, 0.002),
    "average_weights": Family(0.30, 0.004),
    "shape_schedule": Family(0.30, 0.004),
    "add_warmup": Family(0.25, 0.003),
    "add_cooldown": Family(0.30, 0.004),
    "insert_dropout": Family(0.10, 0.001),
    "remove_dropout": Family(0.20, 0.002),
    "label_smoothing": Family(0.20, 0.002),
    "reshape_loss": Family(0.15, 0.002),
    "z_loss": Family(0.20, 0.001),
    "augment": Family(0.20, 0.003),
    "remove_augmentation": Family(0.10, 0.004),
    "plain_finish": Family(0.25, 0.002),
    "swap_sampling": Family(0.10, 0.001),
    "average_views": Family(0.20, 0.003),
    "save_half": Family(0.20, 0.001),
    "channels_last": Family(0.20, 0.005),
}


class Splice(NamedTuple):
    """Bytes `start` to `end` of a file's UTF-8 text give way to `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Operator:
    """The name of an edit, as a trial carries it: what was done, where, and by how much."""

    family: str
    site: str
    move: str

    def __str__(self) -> str:
        return f"{self.family} {self.site} {self.move}"

    @classmethod
    def parse(cls, text: str) -> tuple["Operator", ...]:
        """The operators of a trial, joined by ` + `; those that no family of this catalogue names are left out."""
        parts = (part.split(" ") for part in text.split(" + "))
        return tuple(cls(*part) for part in parts if len(part) == 3 and part[0] in FAMILIES)

    @property
    def direction(self) -> int:
        """+1 where a number rises, -1 where it falls, 0 where there is no order."""
        return (self.step > 0) - (self.step < 0)

    @property
    def step(self) -> float:
        """Relative size of a numeric move, signed: 0.5 for x1.5, -0.25 for x0.8; 0.0 where there is no order."""
        if self.family not in ("scale_constant", "shift_constant", "resize_tuple"):
            return 0.0
        try:
            number = float(self.move.lstrip("x"))
        except ValueError:
            return 0.0
        if not self.move.startswith("x"):
            return number
        return number - 1 if number >= 1 else 1 - 1 / max(number, 1e-9)


@dataclass(frozen=True)
class Edit:
    """A candidate; light, because only the chosen one is carried out."""

    family: str
    site: str
    """`file:place`, without blanks; equal for edits of one place in versions that differ elsewhere."""
    move: str
    domain: Domain
    change: str
    """What changes, from what to what: "Scaling LR (train.py) from 0.1 to 0.15"."""
    reason: str
    """What follows "should": "cover more ground in few steps"."""
    splices: tuple[tuple[str, Splice], ...]
    cost: int = 0
    """Effect on running time: -1 less, +1 more, 0 none worth mentioning."""
    size: int = 0
    """Effect on the saved artifact: -1 smaller, +1 larger."""

    @property
    def operator(self) -> Operator:
        """Name of this edit."""
        return Operator(self.family, self.site, self.move)

    @property
    def file(self) -> str:
        """The file it is about."""
        return self.site.split(":", 1)[0]

    @property
    def files(self) -> frozenset[str]:
        """Every file it touches."""
        return frozenset(path for path, _ in self.splices)

    @property
    def direction(self) -> int:
        """+1 where a number rises, -1 where it falls, 0 where there is no order."""
        return self.operator.direction

    @property
    def step_size(self) -> float:
        """Relative size of a numeric move, 0.0 where there is no order."""
        return abs(self.operator.step)

    @property
    def description(self) -> str:
        """The hypothesis, without the number expected of it."""
        return f"{self.change} should {self.reason}"

    def apply(self, recipe: Recipe) -> Recipe:
        """The edited recipe. `recipe` must be the one the edit was enumerated on."""
        edited = apply_all(recipe, [self])
        assert edited is not None, "the splices of one edit overlap"
        return edited


def apply_all(recipe: Recipe, edits: Sequence[Edit]) -> Recipe | None:
    """The recipe after several edits enumerated on it; None where they touch the same text or make no program."""
    files = dict(recipe.files)
    # Two edits that need the same import bring it once.
    splices = dict.fromkeys(splice for edit in edits for splice in edit.splices)
    try:
        for path in {path for path, _ in splices}:
            files[path] = spliced(files[path], (splice for name, splice in splices if name == path))
        if len(edits) > 1:
            for path in {path for path, _ in splices if path.endswith(".py")}:
                ast.parse(files[path], path)
    except (Overlap, SyntaxError):
        return None
    return Recipe(files)


class Overlap(ValueError):
    """Two splices touch the same text."""


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """`text` after the splices; those at one place keep their order. Raises Overlap."""
    content = text.encode()
    parts: list[bytes] = []
    at = 0
    for start, end, new in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if start < at:
            raise Overlap(f"a splice starts at byte {start}, before the end of another at {at}")
        parts += [content[at:start], new.encode()]
        at = end
    return b"".join((*parts, content[at:])).decode()
