"""A recipe version: its files, manifest, digest, and the unified diff from one version to the next."""

import ast
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath


class PatchError(ValueError):
    """A diff does not apply to the recipe it is said to start from."""


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal: the address of a blob."""
    return sha256(content).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """The editable files of a task, as UTF-8 text by POSIX path. Equal files give an equal digest."""

    files: Mapping[str, str]

    def __post_init__(self) -> None:
        for path in self.files:
            pure = PurePosixPath(path)
            plain = str(pure) == path != "." and not pure.is_absolute() and ".." not in pure.parts
            # git writes names with quotes or backslashes in another form, and patches must stay readable to it.
            if not plain or not path.isprintable() or '"' in path or "\\" in path:
                raise ValueError(f"expected a plain relative path inside the recipe, found {path!r}")
            for folder in pure.parents:
                if str(folder) in self.files:
                    raise ValueError(f"{folder} cannot be a file and the folder of {path}")

    @property
    def manifest(self) -> bytes:
        """JSON {path: sha256}, sorted by path: what the digest is taken over."""
        return manifest({path: text.encode() for path, text in self.files.items()})

    @property
    def digest(self) -> str:
        """Digest of the manifest: the name of this version."""
        return digest_of(self.manifest)

    @property
    def size_bytes(self) -> int:
        """Bytes of source over all files."""
        return sum(len(text.encode()) for text in self.files.values())

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """The manifest and every file: all that is needed to rebuild this version."""
        return (self.manifest, *(text.encode() for text in self.files.values()))

    @cached_property
    def program(self) -> str:
        """Digest of the syntax trees: equal for versions that differ in comments and formatting only.

        Raises SyntaxError where a Python file does not parse.
        """
        parts = {
            path: _syntax_tree(path, text) if path.endswith(".py") else text
            for path, text in sorted(self.files.items())
        }
        return digest_of(json.dumps(parts).encode())

    @classmethod
    def read(cls, folder: Path, names: Iterable[str]) -> "Recipe":
        """Read the named files below `folder`. Raises OSError, or ValueError where one is not UTF-8 text."""
        return cls({name: _text(name, (folder / name).read_bytes()) for name in names})

    @classmethod
    def load(cls, digest: str, blob: Callable[[str], bytes]) -> "Recipe":
        """The version with this digest, from content-addressed bytes. Raises whatever `blob` raises."""
        listed: dict[str, str] = json.loads(blob(digest))
        return cls({path: _text(path, blob(content)) for path, content in listed.items()})


def manifest(files: Mapping[str, bytes]) -> bytes:
    """JSON {path: sha256 of the content}, sorted by path, without whitespace."""
    return listing({path: digest_of(content) for path, content in files.items()})


def listing(digests: Mapping[str, str]) -> bytes:
    """The manifest of contents whose digests are known already."""
    return json.dumps(dict(sorted(digests.items())), ensure_ascii=False, separators=(",", ":")).encode()


def diff(old: Recipe, new: Recipe) -> str:
    """Unified diff in git's form, empty where nothing changed; `apply` and `git apply` turn it back exactly."""
    parts: list[str] = []
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path), new.files.get(path)
        if before == after:
            continue
        parts += _header(path, before, after)
        hunks = difflib.unified_diff(_lines(before or ""), _lines(after or ""), *_sides(path, before, after))
        for line in hunks:
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def apply(patch: str, old: Recipe) -> Recipe:
    """The recipe that `patch` makes of `old`. Strict: every context line must match at its stated place.

    Raises PatchError naming the file and line of the first mismatch.
    """
    files = dict(old.files)
    done: set[str] = set()
    for section in re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE):
        if not section:
            continue
        lines = _lines(section)
        header = re.fullmatch(r"diff --git a/(.+) b/\1\n", lines[0])
        if header is None:
            raise PatchError(f"expected `diff --git a/PATH b/PATH`, found {lines[0]!r}")
        path = header[1]
        if path in done:
            raise PatchError(f"{path}: the diff changes it twice")
        done.add(path)
        after = _patched_file(path, files.get(path), lines)
        if after is None:
            del files[path]
        else:
            files[path] = after
    try:
        return Recipe(files)
    except ValueError as error:
        raise PatchError(str(error)) from error


def _patched_file(path: str, before: str | None, section: list[str]) -> str | None:
    """Text of the file after its section of the diff; none where the section deletes it."""
    created, deleted = "new file mode 100644\n" in section[1:2], "deleted file mode 100644\n" in section[1:2]
    if created != (before is None):
        raise PatchError(f"{path}: the diff {'creates' if created else 'changes'} it, the parent says otherwise")
    hunks = section[1 + (created or deleted) :]
    if hunks:
        source, target = _sides(path, before, None if deleted else "")
        if hunks[:2] != [f"--- {source}\n", f"+++ {target}\n"]:
            raise PatchError(f"{path}: expected `--- {source}` and `+++ {target}`, found {''.join(hunks[:2])!r}")
    after = _patched(path, _lines(before or ""), hunks[2:])
    if deleted and after:
        raise PatchError(f"{path}: the diff deletes it and leaves {len(after)} lines")
    if any(not line.endswith("\n") for line in after[:-1]):
        raise PatchError(f"{path}: a line without a newline stands before the end of the file")
    return None if deleted else "".join(after)


def _header(path: str, before: str | None, after: str | None) -> list[str]:
    mode = ["new file mode 100644\n"] if before is None else ["deleted file mode 100644\n"] if after is None else []
    return [f"diff --git a/{path} b/{path}\n", *mode]


def _sides(path: str, before: str | None, after: str | None) -> tuple[str, str]:
    """What stands after --- and +++. git ends a name with blanks in it with a tab, or would cut it there."""
    tab = "\t" if " " in path else ""
    return (
        "/dev/null" if before is None else f"a/{path}{tab}",
        "/dev/null" if after is None else f"b/{path}{tab}",
    )


_HUNK = re.compile(r"@@ -([0-9]+)(?:,([0-9]+))? \+([0-9]+)(?:,([0-9]+))? @@\n")


def _patched(path: str, old: list[str], patch: list[str]) -> list[str]:
    """Lines of the file after the hunks in `patch`."""
    new: list[str] = []
    at = cursor = 0
    while cursor < len(patch):
        hunk = _HUNK.fullmatch(patch[cursor])
        if hunk is None:
            raise PatchError(f"{path}: expected a hunk header, found {patch[cursor]!r}")
        old_count, new_count = int(hunk[2] or "1"), int(hunk[4] or "1")
        start = int(hunk[1]) - (1 if old_count else 0)
        if not at <= start <= len(old):
            raise PatchError(f"{path}: the hunk starts at line {start + 1}, the file has {len(old)} lines")
        new += old[at:start]
        stop = next((i for i in range(cursor + 1, len(patch)) if patch[i].startswith("@@ ")), len(patch))
        at, lines = _hunk(path, old, start, patch[cursor + 1 : stop])
        if (at - start, len(lines)) != (old_count, new_count):
            raise PatchError(
                f"{path}: the hunk says {old_count} old and {new_count} new lines and has {at - start} and {len(lines)}"
            )
        new += lines
        cursor = stop
    return new + old[at:]


def _hunk(path: str, old: list[str], at: int, patch: list[str]) -> tuple[int, list[str]]:
    """Where the hunk's old side ends, and the lines of its new side."""
    new: list[str] = []
    for index, line in enumerate(patch):
        mark, text = line[0], line[1:]
        if mark == "\\":
            continue
        if patch[index + 1 : index + 2] and patch[index + 1].startswith("\\ "):
            text = text.removesuffix("\n")
        if mark in " -":
            if at >= len(old) or old[at] != text:
                found = repr(old[at]) if at < len(old) else "the end of the file"
                raise PatchError(f"{path} line {at + 1}: the diff expects {text!r}, the parent has {found}")
            at += 1
        elif mark != "+":
            raise PatchError(f"{path}: expected a line of a diff, found {line!r}")
        if mark in " +":
            new.append(text)
    return at, new


def _lines(text: str) -> list[str]:
    """Split after every newline only; str.splitlines would also split at form feeds and other marks."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


@lru_cache(maxsize=16)
def parsed(path: str, text: str) -> ast.Module:
    """Syntax tree of a Python file, shared with the next caller: nobody may change it.

    Raises SyntaxError for whatever CPython cannot parse.
    """
    try:
        return ast.parse(text, path)
    except (ValueError, RecursionError, MemoryError) as error:
        # What CPython raises for NUL characters and for nesting that is too deep for its parser.
        raise SyntaxError(f"{path}: Python cannot parse it: {error or type(error).__name__}") from error


@lru_cache(maxsize=64)
def _syntax_tree(path: str, text: str) -> str:
    """Kept: from one version to the next most files stay as they are."""
    try:
        return ast.dump(parsed(path, text))
    except RecursionError as error:
        raise SyntaxError(f"{path}: Python cannot walk it: {error}") from error


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected UTF-8 text, found {error.reason} at byte {error.start}") from error
