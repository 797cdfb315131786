"""The catalogue of edits: each family before and after on realistic code, and what holds for every edit."""

import ast
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.edits import FAMILIES, Edit, Operator, apply_all, edits
from evaluators.task import builtin_tasks
from ledger.recipes import Recipe
from ledger.vocabulary import Domain

IMAGES = Recipe(
    {
        "model.py": '''\
"""A convolutional network."""

import torch
from torch import nn

CLASS_COUNT = 10
WIDTHS = (24, 48)  # channels of each stage
KERNEL_SIZE = 3


class Stage(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, KERNEL_SIZE, padding=KERNEL_SIZE // 2, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(width, momentum=0.4)
        self.activation = nn.GELU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.pool(self.conv(images))))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(Stage(1, WIDTHS[0]), Stage(WIDTHS[0], WIDTHS[1]))
        self.head = nn.Linear(WIDTHS[1], CLASS_COUNT, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.stages(images).amax(dim=(2, 3))
        return self.head(hidden)  # [N,10]
''',
        "train.py": '''\
"""Train the network."""

import torch
import torch.nn.functional as F
from model import Network

EPOCHS = 20
BATCH_SIZE = 100
PEAK_LR = 0.4
MOMENTUM = 0.9
NESTEROV = True
WEIGHT_DECAY = 5e-4
NOISE_SHARE = 0.1
SEED = 0


def learning_rate(step: int, steps: int) -> float:
    return PEAK_LR * (1 - step / steps)


def augment(images: torch.Tensor) -> torch.Tensor:
    return images + NOISE_SHARE * torch.randn_like(images)


def train(images: torch.Tensor, labels: torch.Tensor) -> Network:
    network = Network()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=PEAK_LR, momentum=MOMENTUM, nesterov=NESTEROV, weight_decay=WEIGHT_DECAY
    )
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    step = 0
    for epoch in range(EPOCHS):
        views = augment(images)
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            # The loss of this batch: é is here to tell bytes from characters.
            loss = F.cross_entropy(network(views[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return network


def main() -> None:
    torch.manual_seed(SEED)
    torch.save(train(torch.rand(100, 1, 8, 8), torch.randint(0, 10, (100,))).state_dict(), "model.pt")
''',
        "predict.py": '''\
"""Classify images."""

import torch
from model import Network

BATCH_SIZE = 500


def classify(network: Network, images: torch.Tensor) -> torch.Tensor:
    network.train(False)
    with torch.inference_mode():
        return torch.cat([network(batch).argmax(dim=1) for batch in images.split(BATCH_SIZE)])
''',
    }
)

TEXT = Recipe(
    {
        "train.py": '''\
"""A transformer over bytes."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    dim: int = 64
    heads: int = 4
    layers: int = 2
    weight_decay: float = 0.0
    offsets = (1, 2, 3)


hyper = {"learning_rate": 3e-3, "dropout": 0.0}


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))


class MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return self.down(F.relu(x).square())


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim)
        self.mlp = MLP(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm(x))
        return self.dropout(x + self.mlp(x))


class Model(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, config.dim)
        self.blocks = nn.ModuleList([Block(config.dim) for _ in range(config.layers)])
        self.head = nn.Linear(config.dim, 256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def lr_at(step: int, total_steps: int) -> float:
    return hyper["learning_rate"] * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def train(text: torch.Tensor, total_steps: int) -> Model:
    model = Model(Config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=hyper["learning_rate"])
    for step in range(total_steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, total_steps)
        batch = text[torch.randint(0, len(text) - 65, (8, 1)) + torch.arange(65)]
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            batch[:, 1:].flatten(),  # bytes to come
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model
''',
    }
)


@cache
def all_edits(name: str) -> tuple[tuple[Recipe, Edit], ...]:
    """Every edit of every domain of the recipes here, or of a built-in task's."""
    known = {"images": IMAGES, "text": TEXT} | {task.contract.name: task.recipe() for task in builtin_tasks()}
    recipe = known[name]
    return tuple((recipe, edit) for domain in Domain for edit in edits(recipe, domain, sorted(recipe.files)))


def names() -> list[str]:
    return ["images", "text", *(task.contract.name for task in builtin_tasks())]


def found(recipe: Recipe, domain: Domain, family: str, site: str = "", move: str = "") -> list[Edit]:
    return [
        edit
        for edit in edits(recipe, domain, sorted(recipe.files))
        if edit.family == family and site in edit.site and edit.move == (move or edit.move)
    ]


def source(recipe: Recipe, domain: Domain, family: str, site: str = "", move: str = "") -> str:
    """All files after the only edit that fits."""
    (edit,) = found(recipe, domain, family, site, move)
    return "\n".join(edit.apply(recipe).files.values())


# What holds for every edit


@pytest.mark.parametrize("name", names())
def test_every_edit_parses_and_is_another_program(name: str) -> None:
    for recipe, edit in all_edits(name):
        assert edit.apply(recipe).program != recipe.program, edit.operator


@pytest.mark.parametrize("name", names())
def test_an_edit_changes_the_files_that_it_names_and_no_other(name: str) -> None:
    for recipe, edit in all_edits(name):
        after = edit.apply(recipe)
        assert {path for path in recipe.files if after.files[path] != recipe.files[path]} == edit.files, edit.operator
        assert edit.file in edit.files


@pytest.mark.parametrize("name", names())
def test_an_operator_is_unique_and_its_name_reads_back(name: str) -> None:
    for domain in Domain:
        operators = [edit.operator for recipe, edit in all_edits(name) if edit.domain is domain]
        assert len(set(operators)) == len(operators)
        for operator in operators:
            assert Operator.parse(str(operator)) == (operator,)
            assert operator.family in FAMILIES


@pytest.mark.parametrize("task", builtin_tasks(), ids=lambda task: task.contract.name)
def test_a_built_in_task_offers_forty_edits_and_three_structural_families(task: object) -> None:
    everything = all_edits(task.contract.name)  # type: ignore[attr-defined]
    structural = {edit.family for _, edit in everything if not edit.family.endswith(("_constant", "_flag", "_tuple"))}
    assert len(everything) >= 40
    assert len(structural) >= 3


@given(st.lists(st.sampled_from(["model.py", "train.py", "predict.py"]), unique=True), st.sampled_from(list(Domain)))
def test_edits_stay_within_the_given_files(files: Sequence[str], domain: Domain) -> None:
    assert all(edit.files <= set(files) for edit in edits(IMAGES, domain, files))


@given(st.data())
def test_edits_apply_one_after_the_other(data: st.DataObject) -> None:
    recipe = data.draw(st.sampled_from([IMAGES, TEXT]))
    for _ in range(3):
        domain = data.draw(
            st.sampled_from([Domain.ARCH, Domain.OPT, Domain.SCHED, Domain.REG, Domain.LOSS, Domain.DATA])
        )
        choices = edits(recipe, domain, sorted(recipe.files))
        if choices:
            recipe = data.draw(st.sampled_from(choices)).apply(recipe)
        for text in recipe.files.values():
            ast.parse(text)


@given(st.data())
def test_two_edits_combine_unless_they_touch_the_same_text(data: st.DataObject) -> None:
    pool = [edit for _, edit in all_edits("images")]
    first, second = data.draw(st.sampled_from(pool)), data.draw(st.sampled_from(pool))
    both = apply_all(IMAGES, [first, second])
    if both is not None:
        assert both.program != IMAGES.program


def test_the_same_recipe_gives_the_same_edits_in_the_same_order() -> None:
    copy = Recipe(dict(reversed(list(IMAGES.files.items()))))
    for domain in Domain:
        again = edits(copy, domain, sorted(copy.files, reverse=True))
        assert again == edits(IMAGES, domain, sorted(IMAGES.files))


def test_comments_and_formatting_survive() -> None:
    text = source(IMAGES, Domain.ARCH, "scale_constant", "WIDTHS[1]", "x1.5")
    assert "WIDTHS = (24, 72)  # channels of each stage\n" in text


def test_a_file_that_does_not_parse_has_no_edits_and_does_no_harm() -> None:
    recipe = Recipe({**IMAGES.files, "broken.py": "def (:\n"})
    assert edits(recipe, Domain.ARCH, ["broken.py"]) == []
    assert edits(recipe, Domain.ARCH, ["model.py"]) == edits(IMAGES, Domain.ARCH, ["model.py"])


# Numbers


@pytest.mark.parametrize(
    ("site", "domain"),
    [
        ("WIDTHS[0]", Domain.ARCH),
        ("KERNEL_SIZE", Domain.ARCH),
        ("BatchNorm2d.momentum", Domain.ARCH),
        ("PEAK_LR", Domain.OPT),
        ("train.py:MOMENTUM", Domain.OPT),
        ("EPOCHS", Domain.SCHED),
        ("WEIGHT_DECAY", Domain.REG),
        ("train.py:BATCH_SIZE", Domain.DATA),
        ("NOISE_SHARE", Domain.DATA),
    ],
)
def test_a_number_belongs_to_the_domain_that_uses_it(site: str, domain: Domain) -> None:
    holders = {edit.domain for _, edit in all_edits("images") if edit.site.endswith(site)}
    assert holders == {domain}


@pytest.mark.parametrize("site", ["CLASS_COUNT", "SEED", "predict.py:BATCH_SIZE"])
def test_a_number_that_data_or_machine_dictate_is_left_alone(site: str) -> None:
    assert not [edit for _, edit in all_edits("images") if edit.site.endswith(site)]


def test_the_size_of_the_answer_is_left_alone_whatever_its_name() -> None:
    renamed = Recipe({path: text.replace("CLASS_COUNT", "BUCKETS") for path, text in IMAGES.files.items()})
    assert not found(renamed, Domain.ARCH, "scale_constant", "BUCKETS")


def test_numbers_of_dataclasses_dictionaries_and_calls_are_found() -> None:
    sites = {edit.site for _, edit in all_edits("text")}
    assert {"train.py:Config.dim", "train.py:Config.layers", "train.py:learning_rate"} <= sites


def test_widths_keep_the_heads_divisor() -> None:
    for edit in found(TEXT, Domain.ARCH, "scale_constant", "Config.dim"):
        assert int(edit.change.rsplit(" ", 1)[1]) % 8 == 0


def test_kernels_stay_odd() -> None:
    assert {edit.change[-1] for edit in found(IMAGES, Domain.ARCH, "shift_constant", "KERNEL_SIZE")} == {"1", "5"}


def test_momentum_moves_by_its_distance_to_one() -> None:
    text = source(IMAGES, Domain.OPT, "shift_constant", "MOMENTUM", "+1")
    assert "MOMENTUM = 0.95\n" in text
    assert all(
        edit.direction == (1 if edit.move[0] == "+" else -1) for edit in found(IMAGES, Domain.OPT, "shift_constant")
    )


def test_exponents_stay_exponents() -> None:
    assert "WEIGHT_DECAY = 1e-3\n" in source(IMAGES, Domain.REG, "scale_constant", "WEIGHT_DECAY", "x2")


def test_a_zero_is_switched_on_at_a_usual_value() -> None:
    assert "weight_decay: float = 0.01\n" in source(TEXT, Domain.REG, "enable_constant", "weight_decay", "x0.01")


def test_a_rising_tuple_goes_on_rising() -> None:
    recipe = Recipe(
        {"model.py": "LENGTHS = (2, 3, 4)\nclass Net(nn.Module):\n    def f(self):\n        return LENGTHS\n"}
    )
    recipe = Recipe({"model.py": "from torch import nn\n" + recipe.files["model.py"]})
    assert "LENGTHS = (2, 3, 4, 5)\n" in source(recipe, Domain.ARCH, "resize_tuple", "LENGTHS", "+1")
    assert {edit.site[-2] for edit in found(recipe, Domain.ARCH, "shift_constant")} == {"2"}


def test_a_switch_is_turned() -> None:
    assert "NESTEROV = False\n" in source(IMAGES, Domain.OPT, "toggle_flag", "NESTEROV")


# Structure: family, domain, site, move, what the edited source contains

EXAMPLES = [
    (IMAGES, "swap_activation", Domain.ARCH, "", "relu", "self.activation = nn.ReLU()"),
    (TEXT, "swap_activation", Domain.ARCH, "", "gelu", "self.down(F.gelu(x))"),
    (IMAGES, "swap_norm", Domain.ARCH, "", "groupnorm", "nn.GroupNorm(1, width)"),
    (TEXT, "swap_norm", Domain.ARCH, "", "rmsnorm", "self.norm = nn.RMSNorm(dim)"),
    (IMAGES, "remove_norm", Domain.ARCH, "", "off", "self.norm = nn.Identity()"),
    (TEXT, "norm_before_linear", Domain.ARCH, "head", "rms", "self.head(F.rms_norm(x, x.shape[-1:]))"),
    (TEXT, "qk_norm", Domain.ARCH, "", "rms", "attention(F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:]), v"),
    (
        IMAGES,
        "residual",
        Domain.ARCH,
        "",
        "add",
        "return transformed + images if transformed.shape == images.shape else",
    ),
    (TEXT, "residual_gain", Domain.ARCH, "mlp", "0.5", "self.dropout(x + self.mlp_gain * self.mlp(x))"),
    (IMAGES, "swap_pooling", Domain.ARCH, "MaxPool2d", "AvgPool2d", "self.pool = nn.AvgPool2d(2)"),
    (IMAGES, "swap_pooling", Domain.ARCH, "amax", "mean", "self.stages(images).mean(dim=(2, 3))"),
    (IMAGES, "zero_init", Domain.ARCH, "", "zero", "        nn.init.zeros_(self.head.weight)\n"),
    (IMAGES, "scale_init", Domain.ARCH, "", "x0.5", "        self.head.weight.data.mul_(0.5)\n"),
    (IMAGES, "orthogonal_init", Domain.ARCH, "", "on", "                nn.init.orthogonal_(weight)\n"),
    (TEXT, "tie_weights", Domain.ARCH, "", "on", "self.head.weight = self.embed.weight\n"),
    (
        IMAGES,
        "add_block",
        Domain.ARCH,
        "",
        "on",
        "self.head(entering + self.block_down(self.block_up(entering).relu()))",
    ),
    (IMAGES, "softcap", Domain.ARCH, "", "at15", "return (15 * torch.tanh(self.head(hidden) / 15))  # [N,10]"),
    (IMAGES, "logit_gain", Domain.LOSS, "", "on", "return (self.logit_gain * self.head(hidden))"),
    (IMAGES, "swap_optimizer", Domain.OPT, "", "AdamW", "PEAK_LR = 0.012\n"),
    (IMAGES, "swap_optimizer", Domain.OPT, "", "NAdam", "lr=PEAK_LR, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.95))"),
    (TEXT, "set_argument", Domain.OPT, "", "betas=(0.9,0.95)", 'lr=hyper["learning_rate"], betas=(0.9, 0.95))'),
    (IMAGES, "clip_gradient", Domain.OPT, "", "at1", "clip_grad_norm_([weight for group in optimizer.param_groups for"),
    (IMAGES, "centralise_gradient", Domain.OPT, "", "on", "weight.grad -= weight.grad.mean("),
    (IMAGES, "average_weights", Domain.OPT, "", "d0.9", "mean.lerp_(live.detach(), 0.1)"),
    (IMAGES, "shape_schedule", Domain.SCHED, "", "sqrt", "PEAK_LR * (1 - (max(0.0, step / steps) ** 0.5))"),
    (IMAGES, "add_warmup", Domain.SCHED, "", "f0.1", "* min(1.0, (step + 1) / (0.1 * steps))"),
    (IMAGES, "add_cooldown", Domain.SCHED, "", "f0.2", "* min(1.0, (steps - step) / (0.2 * steps))"),
    (TEXT, "insert_dropout", Domain.REG, "Model", "p0.1", "self.head(F.dropout(x, 0.1, self.training))"),
    (TEXT, "remove_dropout", Domain.REG, "", "off", "self.dropout = nn.Identity()"),
    (IMAGES, "label_smoothing", Domain.REG, "", "s0.1", "labels[chosen], label_smoothing=0.1)"),
    (
        TEXT,
        "label_smoothing",
        Domain.LOSS,
        "",
        "s0.1",
        "batch[:, 1:].flatten(), label_smoothing=0.1,  # bytes to come\n",
    ),
    (IMAGES, "reshape_loss", Domain.LOSS, "", "focal1", "loss = (losses * (1 - torch.exp(-losses))).mean()\n"),
    (IMAGES, "z_loss", Domain.LOSS, "", "w0.001", "+ 0.001 * logits_once.logsumexp(dim=1).square().mean())"),
    (IMAGES, "augment", Domain.DATA, "", "noise", "varied = varied + 0.05 * torch.randn_like(varied)\n"),
    (TEXT, "augment", Domain.DATA, "", "noise0.05", "varied = varied.where(torch.rand(varied.shape"),
    (IMAGES, "remove_augmentation", Domain.DATA, "", "off", "views = images\n"),
    (IMAGES, "plain_finish", Domain.DATA, "", "f0.85", "(augment(images) if epoch < 0.85 * (EPOCHS) else images)"),
    (IMAGES, "swap_sampling", Domain.DATA, "", "replacement", "torch.randint(len(images), (len(images),))"),
    (IMAGES, "average_views", Domain.EVAL, "", "mirror", "(network(batch) + network(batch.flip(-1))).argmax(dim=1)"),
    (IMAGES, "save_half", Domain.QUANT, "", "half", "value.half() if value.is_floating_point() else value"),
    (IMAGES, "channels_last", Domain.SYS, "", "on", "network = Network().to(memory_format=torch.channels_last)"),
]


@pytest.mark.parametrize(
    ("recipe", "family", "domain", "site", "move", "expected"),
    EXAMPLES,
    ids=lambda value: value if str(value) in FAMILIES else "",
)
def test_a_structural_edit_writes(
    recipe: Recipe, family: str, domain: Domain, site: str, move: str, expected: str
) -> None:
    assert expected in source(recipe, domain, family, site, move)


def test_every_structural_family_has_an_example() -> None:
    numeric = {"scale_constant", "shift_constant", "resize_tuple", "enable_constant", "toggle_flag"}
    assert {example[1] for example in EXAMPLES} | numeric == set(FAMILIES)


def test_a_cosine_is_straightened() -> None:
    text = source(
        Recipe({"t.py": "import math\ndef lr(step):\n    return 1 + math.cos(math.pi * step)\n"}),
        Domain.SCHED,
        "shape_schedule",
        "",
        "linear",
    )
    assert "return 1 + (1 - 2 * (step))\n" in text


def test_a_bent_schedule_brings_its_import() -> None:
    text = source(IMAGES, Domain.SCHED, "shape_schedule", "", "cosine")
    assert "import math\nimport torch\n" in text
    assert "(1 - (0.5 - 0.5 * math.cos(math.pi * (step / steps))))" in text


def test_a_residual_is_not_added_to_a_branch_that_is_added_already() -> None:
    assert not found(TEXT, Domain.ARCH, "residual")


def test_gradients_that_are_clipped_are_not_clipped_again() -> None:
    assert not found(TEXT, Domain.OPT, "clip_gradient")


def test_an_optimiser_that_is_not_at_hand_is_not_averaged() -> None:
    text = (
        IMAGES.files["train.py"]
        .replace("    optimizer = torch", "    optimizers = [torch")
        .replace("optimizer.step()", "optimizers[0].step()")
    )
    assert not found(Recipe({"train.py": text.replace("DECAY\n    )", "DECAY\n    )]")}), Domain.OPT, "average_weights")
