"""The system calls that no recipe may make, as a seccomp filter (seccomp(2), in classic BPF)."""

import ctypes
import errno
import platform
import struct
import sys
from functools import lru_cache

from runners.kernel import prctl

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Machine -> AUDIT_ARCH of its native calls; a call of another kind ends the process."""
REFUSED = {
    # debuggers and other processes' memory
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # what is mounted, and namespaces of its own
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # keys of the user and of the kernel
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # large or dangerous parts of the kernel
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "io_uring_setup": (425, 425),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "lookup_dcookie": (212, 18), "personality": (135, 92),
    # the machine
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89), "quotactl": (179, 60),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
}  # fmt: skip
"""Call -> its number on x86_64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h)."""
_CLONE, _CLONE3, _PRCTL, _SOCKET = (56, 220), (435, 435), (157, 167), (41, 198)
_NEW_NAMESPACES = 0x7E020000
_SET_DUMPABLE = 4
_FAMILIES = (1, 2, 10)  # unix, IPv4, IPv6: no other family belongs to a network namespace for sure
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data; arguments are little-endian
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000  # calls of the x32 ABI have this bit
_PR_SET_SECCOMP, _MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38


def is_known() -> bool:
    """Whether the filter knows this machine's system calls."""
    return platform.machine() in ARCHITECTURES and sys.byteorder == "little"


def install() -> None:
    """Refuse the calls to this process and its children, for good. Raises OSError."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)  # without it, a filter could mislead a setuid program
    code = program()
    text = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HP", len(code) // 8, ctypes.addressof(text))
    holder = ctypes.create_string_buffer(head, len(head))
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(holder))


@lru_cache(maxsize=1)
def program() -> bytes:
    """The filter for this machine. Refused calls fail with EPERM."""
    machine = platform.machine()
    column = list(ARCHITECTURES).index(machine)
    steps = [_step(_LOAD, _ARCH_AT), _step(_EQUAL, ARCHITECTURES[machine], 1, 0), _step(_RETURN, _KILL)]
    steps += [_step(_LOAD, _NUMBER_AT), _step(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    for numbers in REFUSED.values():
        steps += [_step(_EQUAL, numbers[column], 0, 1), _refuse(errno.EPERM)]
    # Its flags lie in memory, where a filter cannot look; on ENOSYS the C library takes clone.
    steps += [_step(_EQUAL, _CLONE3[column], 0, 1), _refuse(errno.ENOSYS)]
    steps += _argument(_CLONE[column], [_step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _refuse(errno.EPERM)])
    # Whoever watches must be able to read what a process uses.
    steps += _argument(_PRCTL[column], [_step(_EQUAL, _SET_DUMPABLE, 0, 1), _refuse(errno.EPERM)])
    known = [_step(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
    steps += _argument(_SOCKET[column], [*known, _refuse(errno.EAFNOSUPPORT)])
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _argument(number: int, steps: list[bytes]) -> list[bytes]:
    """`steps` over the first argument of one call."""
    inner = [_step(_LOAD, _ARGUMENT_AT), *steps, _step(_LOAD, _NUMBER_AT)]
    return [_step(_EQUAL, number, 0, len(inner)), *inner]


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERROR | number)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
