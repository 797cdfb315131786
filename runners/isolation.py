"""The tiers of isolation, strongest first, and which of them this machine offers."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from runners import seccomp
from runners.kernel import NEW_PID, enter
from runners.namespaces import USERS, Nursery, become_mapped_user, enter_room, installation, shown_folders
from runners.sandbox import adopt, die_with

TIERS = ("namespaces", "process")
"""Strongest first."""


class IsolationError(Exception):
    """A tier of isolation is demanded that this machine does not offer; the message says how to get it."""


@dataclass(frozen=True)
class Tier:
    """One way to hold a recipe, and whether it works here."""

    name: str
    obstacle: str | None
    """Why it is not available and how to get it; none where it is available."""


def tiers() -> tuple[Tier, ...]:
    """Every tier of `runners.sandbox`, strongest first, tried on this machine."""
    return (Tier("namespaces", _obstacle()), Tier("process", None))


def choose(demanded: str | None) -> str:
    """The strongest tier there is; at least `demanded`, where a task demands one. Raises IsolationError."""
    best = next(tier for tier in tiers() if tier.obstacle is None)
    if demanded is not None and TIERS.index(best.name) > TIERS.index(demanded):
        why = next(tier.obstacle for tier in tiers() if tier.name == demanded)
        raise IsolationError(f"the task demands isolation {demanded!r}, this machine offers {best.name!r}: {why}")
    return best.name


@lru_cache(maxsize=1)
def _obstacle() -> str | None:
    """What stands against tier "namespaces"; found by building a room and entering it, in a process of its own."""
    if not seccomp.is_known():
        return f"its system-call filter knows {' and '.join(seccomp.ARCHITECTURES)} only"
    package = str(Path(__file__).absolute().parents[1])
    program = "import sys; sys.path.insert(0, sys.argv[1]); from runners.isolation import rehearse; rehearse()"
    with tempfile.TemporaryDirectory(prefix="labtrail-probe-") as folder:
        command = [sys.executable, "-P", "-s", "-B", "-c", program, package, folder]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode == 0:
        return None
    said = (tried.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return f"{said}; {_advice(said)}"


def rehearse() -> None:
    """`python -c ... PACKAGE FOLDER`: enter a room as a recipe would; exit code 0 where all of it works."""
    _, package, folder = sys.argv
    shown_folders(package)
    become_mapped_user()
    nursery = Nursery(installation(package), (), USERS.start)
    adopt()
    keeper = nursery.build(folder, None)
    enter(keeper.pidfd, NEW_PID)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            enter_room(keeper, USERS.start)
            die_with(0)
            seccomp.install()
            places = [path for path in installation(package) if Path(path).exists()]
            if closed := [path for path in places if not os.access(path, os.R_OK)]:
                raise PermissionError(f"{closed[0]} is closed to other users")
            code = 0
        except OSError as error:
            print(error, file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _advice(said: str) -> str:
    """How to get what the kernel refused."""
    if "mount proc" in said:
        return "the container hides parts of /proc: start it with `--security-opt systempaths=unconfined`"
    if "closed to other users" in said:
        return "as root, recipes are another user, who must be able to read it: `chmod -R o+rX` it"
    if "mount_setattr" in said:
        return "it needs Linux 5.12 or later"
    if "unshare" in said and os.geteuid() == 0:
        return "start the container with `--cap-add SYS_ADMIN --security-opt seccomp=unconfined`"
    if "unshare" in said or "uid_map" in said or "setgroups" in said:
        return (
            "let users make namespaces: as root, `sysctl user.max_user_namespaces=10000` and, where these exist, "
            "`sysctl kernel.unprivileged_userns_clone=1` and `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    return "labtrail falls back to tier process"
