"""System calls of Linux that Python has no function for, through the C library."""

import ctypes
import os
import platform
from pathlib import Path

NEW_CGROUP, NEW_IPC, NEW_NET, NEW_NS = 0x02000000, 0x08000000, 0x40000000, 0x00020000
NEW_PID, NEW_USER, NEW_UTS = 0x20000000, 0x10000000, 0x04000000
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8
"""Mount flags; mount(2) and mount_setattr(2) give them the same values."""
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
_AT_RECURSIVE, _AT_FDCWD, _MNT_DETACH = 0x8000, -100, 2
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_CAPBSET_DROP, _CAPABILITY_VERSION = 24, 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def prctl(option: int, value: int, more: int = 0) -> None:
    """prctl(2). Raises OSError."""
    # The kernel reads whole registers and refuses rubbish in the unused ones.
    arguments = [ctypes.c_ulong(number) for number in (value, more, 0, 0)]
    _check(_libc.prctl(option, *arguments), f"prctl({option}, {value})")


def unshare(flags: int) -> None:
    """Leave the shared namespaces of these kinds for new ones. Raises OSError."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def enter(pidfd: int, flags: int) -> None:
    """Enter the namespaces of these kinds of another process; of NEW_PID only later children. Raises OSError."""
    _check(_libc.setns(pidfd, flags), f"setns({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    result = _libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None)
    _check(result, f"mount {source} on {target}")


def restrict(target: str, flags: int, below: bool = True) -> None:
    """Add READ_ONLY, NO_SUID, NO_DEV, NO_EXEC to a mount, and to those `below` it (Linux 5.12). Raises OSError."""
    wanted = _MountAttributes(set=flags)
    arguments = (_AT_FDCWD, os.fsencode(target), _AT_RECURSIVE if below else 0, ctypes.byref(wanted))
    result = _libc.syscall(_MOUNT_SETATTR, *arguments, ctypes.c_size_t(ctypes.sizeof(wanted)))
    _check(result, f"mount_setattr {target}")


def pivot_root(new: str, old: str) -> None:
    """Make the mount `new` the root, and move the root so far to `old`. Raises OSError."""
    result = _libc.syscall(_PIVOT_ROOT[platform.machine()], os.fsencode(new), os.fsencode(old))
    _check(result, f"pivot_root {new}")


def detach(target: str) -> None:
    """Unmount `target` with everything below it. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def bound_capabilities() -> None:
    """Let no program that this process starts give it a capability. Raises OSError."""
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        prctl(_PR_CAPBSET_DROP, number)


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
