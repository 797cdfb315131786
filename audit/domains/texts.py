"""Changes in files that are not Python: settings in JSON, TOML, YAML or shell, attributed by what reads them."""

import re
from collections.abc import Iterator

from audit.domains.flow import Flow
from audit.domains.names import domain_of_name, is_size
from audit.domains.report import CONSEQUENCE, Change, Kind
from audit.domains.votes import Trace, Votes
from ledger.recipes import Recipe
from ledger.vocabulary import Domain

_SETTING = re.compile(
    r"""["']?(?:--)?(?P<key>[A-Za-z][\w-]*)["']?\s*(?:[:=]|\s)\s*["']?(?P<value>[^"'\s,#}{\[\]]+)["']?"""
)
_COMMENT = re.compile(r"\s*(?:#|//|;)")
_PROSE = (".md", ".txt", ".rst")


def text_changes(old: Recipe, new: Recipe, flow: Flow) -> list[Change]:
    """One change a setting that differs; one for a file whose difference is no setting. Prose changes nothing."""
    found: list[Change] = []
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path), new.files.get(path)
        if path.endswith((".py", *_PROSE)) or before == after:
            continue
        found += _of_file(path, before or "", after or "", flow)
    return found


def _of_file(path: str, before: str, after: str, flow: Flow) -> Iterator[Change]:
    old, new = dict(_settings(before)), dict(_settings(after))
    keys = [key for key in dict.fromkeys([*new, *old]) if old.get(key, ("", 0))[0] != new.get(key, ("", 0))[0]]
    for key in keys:
        value, line = new.get(key) or old[key]
        domain, trace = _domain(key, flow)
        kind = Kind.DIMENSIONAL if is_size(key) or trace.shaped else Kind.SCALAR
        was = old[key][0] if key in old else "nothing"
        now = value if key in new else "nothing"
        yield Change(path, key, domain, kind, f"`{was}` -> `{now}`", (line, line), old.get(key, (None, 0))[0], now)
    if not keys and _code(before) != _code(after):
        yield Change(path, path, Domain.SYS, Kind.STRUCTURAL, "not Python: the text differs", (1, 1), None, None)


def _settings(text: str) -> Iterator[tuple[str, tuple[str, int]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not _COMMENT.match(line):
            for match in _SETTING.finditer(line):
                yield match["key"], (match["value"], number)


def _code(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not _COMMENT.match(line)]


def _domain(key: str, flow: Flow) -> tuple[Domain, Trace]:
    trace = Trace()
    votes: Votes = flow.member(key, trace, 0)
    if votes:
        return max(votes, key=lambda domain: votes[domain] * CONSEQUENCE[domain]), trace
    return domain_of_name(key) or Domain.SYS, trace
