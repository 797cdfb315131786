"""The folders of a run: a recipe written fresh, an artifact frozen and digested, and all of it removed again."""

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from ledger.recipes import Recipe

ARTIFACT_ENTRIES = 1000
"""Most files and folders of an artifact; with the bound on paths it keeps weights out of file names."""
PATH_BYTES = 200
DEPTH = 16
"""Most folders above a file of an artifact."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Refused(Exception):
    """What a recipe left is not plain files; the message names the entry and what it is."""


@dataclass(frozen=True)
class Artifact:
    """What training left, copied to where training could not write: {path: sha256} below `folder`."""

    folder: Path
    manifest: Mapping[str, str]
    size_bytes: int

    def copy(self, target: Path) -> None:
        """Write the files to the new folder `target`. Raises Refused where one is no longer what was frozen."""
        target.mkdir()
        for path, digest in self.manifest.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            with open_plain(self.folder, path) as source:
                if _write(source, target / path) != digest:
                    raise Refused(f"{path} changed after it was frozen")


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the recipe's files to the new folder `folder`, read-only."""
    folder.mkdir()
    for path, text in recipe.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
        (folder / path).chmod(0o444)


def freeze(root: Path, inner: str, target: Path) -> Artifact | None:
    """Copy the plain files below `root`/`inner` to the new folder `target`, read-only; None where there are none.

    `root` is trusted, nothing below it is: symbolic links are not followed anywhere, and links, sockets, pipes,
    devices, more than one name for a file, names that are not printable text, and excess in number, depth or
    length of paths are refused. Raises Refused; `target` is then incomplete.
    """
    target.mkdir()
    manifest: dict[str, str] = {}
    size_bytes = 0
    try:
        paths = sorted(_files(root, inner))
    except FileNotFoundError:
        return None  # it removed the folder
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with open_plain(root, f"{inner}/{path}") as source:
            manifest[path] = _write(source, target / path)
        size_bytes += (target / path).stat().st_size
    return Artifact(target, manifest, size_bytes) if manifest else None


@contextmanager
def open_plain(root: Path, path: str) -> Iterator[BinaryIO]:
    """Read `root`/`path`, a regular file with one name, without following a link below `root`.

    Raises Refused for everything else, FileNotFoundError where there is nothing.
    """
    with _folder(root, path.split("/")[:-1]) as parent:
        name = path.rpartition("/")[2]
        _check(os.stat(name, dir_fd=parent, follow_symlinks=False), path)
        with _refusing(path):
            # Not blocking: between the check and the opening a pipe may have taken the name.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with open(descriptor, "rb") as file:
        _check(os.fstat(descriptor), path)
        yield file


def remove(folder: Path) -> None:
    """Delete a folder that a recipe wrote to, whatever its depth, modes and links; no error where it is gone.

    No process of the recipe may be alive. Raises OSError.
    """
    try:
        current = _opened(str(folder), None)
    except FileNotFoundError:
        return
    # One open folder at a time, entered and left step by step: neither the length of a path nor the depth of
    # the recursion nor the number of open files bounds the depth.
    below: list[str] = []
    try:
        while True:
            if inner := _emptied(current):
                current = _replaced(current, _opened(inner, current))
                below.append(inner)
            elif below:
                current = _replaced(current, os.open("..", _FOLDER, dir_fd=current))
                os.rmdir(below.pop(), dir_fd=current)
            else:
                break
    finally:
        os.close(current)
    folder.rmdir()


def _emptied(folder: int) -> str | None:
    """Delete files up to the first folder; its name, or none where `folder` is now empty."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name, dir_fd=folder)
    return None


def _opened(name: str, parent: int | None) -> int:
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _files(root: Path, inner: str) -> list[str]:
    """Paths of all files below `root`/`inner`. Raises Refused at the first entry that no artifact may have."""
    found: list[str] = []
    folders = [""]
    for folder in folders:
        for path, entry in _entries(root, inner, folder):
            if not path.isprintable() or len(path.encode()) > PATH_BYTES or path.count("/") >= DEPTH:
                raise Refused(f"{path[:80]!r} is not a short printable path")
            if stat.S_ISDIR(entry.st_mode):
                folders.append(path)
            else:
                _check(entry, path)
                found.append(path)
        if len(found) + len(folders) > ARTIFACT_ENTRIES:
            raise Refused(f"there are more than {ARTIFACT_ENTRIES} files and folders")
    return found


def _entries(root: Path, inner: str, folder: str) -> list[tuple[str, os.stat_result]]:
    """Path below `inner` and status of the entries of one folder; not all of them where there are too many."""
    parts = [*inner.split("/"), *filter(None, folder.split("/"))]
    with _folder(root, parts) as descriptor, os.scandir(descriptor) as entries:
        return [
            (f"{folder}/{entry.name}".lstrip("/"), entry.stat(follow_symlinks=False))
            for entry in itertools.islice(entries, ARTIFACT_ENTRIES + 1)
        ]


def _check(found: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Refused(f"{path} is a symbolic link")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path} is not a regular file")
    if found.st_nlink != 1:
        raise Refused(f"{path} has {found.st_nlink} hard links")


@contextmanager
def _folder(root: Path, parts: list[str]) -> Iterator[int]:
    """Descriptor of a folder below `root`, entered step by step. Raises Refused where a step is no open folder."""
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            with _refusing(part):
                deeper = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    """What a recipe can cause is its own failure and not the machine's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.ENAMETOOLONG):
            raise Refused(f"{path} cannot be read: {error.strerror}") from error
        raise


def _write(source: BinaryIO, target: Path) -> str:
    """Copy to the new file `target`, read-only; the digest of what was written."""
    digest = sha256()
    with target.open("xb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
    target.chmod(0o444)
    return digest.hexdigest()
