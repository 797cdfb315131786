"""What this machine offers a campaign, what a task needs of it, and what to install."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from evaluators.task import Contract
from runners.isolation import IsolationError, choose, tiers

DISK_BYTES = 2_000_000_000
"""Free space below which a campaign may end early: logs, artifacts and the ledger."""


@dataclass(frozen=True)
class Check:
    """One line of `labtrail doctor`."""

    name: str
    state: Literal["ok", "absent", "missing"]
    """`absent` is optional here; `missing` stops a campaign."""
    found: str
    advice: str = ""
    """What to do; empty where nothing is needed."""


def checks(contract: Contract | None, folder: Path) -> list[Check]:
    """What this machine offers, and with a contract what the task needs; `folder` is where the ledger would lie."""
    found = [*_isolation(), _cores(), _memory(), _disk(folder), *_accelerators(), *_programs(), *_extras()]
    return [*found, *_needs(contract)] if contract else found


def gpus() -> tuple[str, ...]:
    """Models of the NVIDIA GPUs that the driver shows, in its order."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(errors="replace").splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(found)


def device_files() -> tuple[str, ...]:
    """The device files and driver facts that a program on a GPU needs."""
    found = [str(path) for path in sorted(Path("/dev").glob("nvidia*")) if not path.is_dir()]
    return (*found, *(path for path in ("/dev/kfd", "/dev/dri") if Path(path).exists()))


def _isolation() -> Iterator[Check]:
    strongest = True
    for tier in tiers():
        if tier.obstacle is None:
            yield Check(f"isolation {tier.name}", "ok", "the default" if strongest else "available")
            strongest = False
        else:
            yield Check(f"isolation {tier.name}", "absent", "not available", tier.obstacle)


def _cores() -> Check:
    usable, load_1m = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    busy = load_1m > 0.5 * usable
    advice = "times measured now are noisy: wait, or stop other work" if busy else ""
    return Check("cores", "ok", f"{usable} usable of {os.cpu_count()}, load {load_1m:.1f}", advice)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    return Check("memory", "ok", f"{memory.available / 1e9:.1f} GB available of {memory.total / 1e9:.1f} GB")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if free < DISK_BYTES:
        return Check("disk", "missing", f"{free / 1e9:.1f} GB free in {folder}", "free 2 GB, or use --ledger elsewhere")
    return Check("disk", "ok", f"{free / 1e9:.1f} GB free in {folder}")


def _accelerators() -> Iterator[Check]:
    models = gpus()
    if not models:
        yield Check("GPUs", "absent", "none (no NVIDIA driver)")
        return
    yield Check("GPUs", "ok", ", ".join(models))
    # In a process of its own: a library that cannot load its driver must not take this one with it.
    asked = "import torch; print(torch.version.cuda, torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    version, _, count = answer.stdout.strip().partition(" ")
    if answer.returncode == 0 and count not in ("", "0"):
        yield Check("CUDA", "ok", f"{version}, torch sees {count}")
    else:
        yield Check("CUDA", "absent", "torch sees no GPU", "install a CUDA build of torch that fits the driver")


def _programs() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} in {sys.prefix}")
    git = shutil.which("git")
    yield Check("git", "ok", git) if git else Check("git", "absent", "not found", "apt install git")


def _extras() -> Iterator[Check]:
    for title, package, extra in (("Ray", "ray", "ray"), ("Slurm client", "submitit", "slurm")):
        version = _version(package)
        advice = "" if version else f"pip install 'labtrail[{extra}]'"
        yield Check(title, "ok" if version else "absent", f"{package} {version}" if version else "not found", advice)
    sbatch = shutil.which("sbatch")
    yield Check("Slurm cluster", "ok" if sbatch else "absent", sbatch or "no sbatch on the path")


def _needs(contract: Contract) -> Iterator[Check]:
    budgets, cores = contract.budgets, len(os.sched_getaffinity(0))
    if contract.isolation is not None:
        try:
            yield _need("isolation", f"{contract.isolation} demanded, {choose(contract.isolation)} used", True, "")
        except IsolationError as error:
            yield _need("isolation", f"{contract.isolation} demanded", False, str(error))
    if budgets.gpus:
        count = len(gpus())
        yield _need("GPUs", f"{budgets.gpus} of {count}", budgets.gpus <= count, "use a machine with more GPUs")
    yield _need("threads", f"{budgets.threads} of {cores} cores", budgets.threads <= cores, "use a larger machine")
    available = psutil.virtual_memory().available
    wanted = f"{budgets.memory_bytes / 1e9:.1f} GB of {available / 1e9:.1f} GB"
    yield _need("memory for a run", wanted, budgets.memory_bytes <= available, "free memory, or use a larger machine")
    for package in dict.fromkeys(module.partition(".")[0] for module in contract.recipe.preload):
        is_there = importlib.util.find_spec(package) is not None
        found = f"{package} {_version(package) or ''}".strip() if is_there else f"{package} not found"
        yield _need("library", found, is_there, f"pip install {package}")


def _need(name: str, found: str, is_met: bool, advice: str) -> Check:
    return Check(f"task: {name}", "ok" if is_met else "missing", found, "" if is_met else advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
