"""`label_text`: surface, kind and strictness of an edit from its author's words, for records without code."""

import re
from dataclasses import dataclass

from audit.domains.lexicon import (
    CLAIMS,
    CODE_EDIT,
    INITIAL,
    LITERAL_ONLY,
    MECHANISMS,
    SIZE_CHANGE,
    STRUCTURE,
    SURFACES,
    VALUE_CHANGE,
)
from audit.domains.report import Kind
from ledger.vocabulary import Domain

LEAD_CHARS = 150
CLAIM_WEIGHT = 3.0
"""What the claimed surface weighs against phrases; three phrases at the front of the hypothesis overrule it."""
ALSO_SHARE = 0.6
_BOUNDARY = re.compile(
    r"(?<!\d):(?=\s)|;|\.\s|\s[—–]\s|,\s+(?=(?:expected|giving|so|which|because|keeping|while|aggressive)\b)"
)


@dataclass(frozen=True)
class TextLabel:
    """What the words say; an author may be wrong about the code, and `classify` is the judge where code is there."""

    domain: Domain
    also: tuple[Domain, ...]
    kind: Kind
    strict_arch: bool
    confidence: float
    """0 to 1: how far the best reading stands above the next one."""


def label_text(hypothesis: str, notes: str, claimed: str | None) -> TextLabel:
    """The labels of one record. Offline, deterministic, and total: empty texts give the claim and a low confidence."""
    lead, rest = _split(hypothesis)
    domains = _domains(lead, rest, claimed)
    domain = max(domains, key=lambda d: (domains[d], d is Domain.ARCH))
    kinds = _kinds(lead, rest, notes)
    kind = max(kinds, key=lambda k: kinds[k])
    also = tuple(
        sorted(
            (d for d in domains if d is not domain and domains[d] >= ALSO_SHARE * domains[domain]),
            key=lambda d: -domains[d],
        )
    )
    return TextLabel(
        domain=domain,
        also=also,
        kind=kind,
        strict_arch=domain is Domain.ARCH and kind is Kind.STRUCTURAL,
        confidence=round(_margin(list(domains.values())) * _margin(list(kinds.values())), 2),
    )


def _split(hypothesis: str) -> tuple[str, str]:
    """The claim that a hypothesis opens with, and its grounds, which say little about what is changed."""
    boundary = next((m for m in _BOUNDARY.finditer(hypothesis) if m.start() >= 12), None)
    end = min(boundary.start() if boundary else len(hypothesis), LEAD_CHARS)
    return hypothesis[:end], hypothesis[end:]


def _domains(lead: str, rest: str, claimed: str | None) -> dict[Domain, float]:
    scores = {
        domain: 2.0 * _count(words, lead) + 0.25 * min(_count(words, rest), 4) for domain, words in SURFACES.items()
    }
    claim = CLAIMS.get((claimed or "").lower())
    if claim is not None:
        # A claim that no word of the text supports is worth half.
        scores[claim] += CLAIM_WEIGHT if scores[claim] else CLAIM_WEIGHT / 2
    if not any(scores.values()):
        scores[Domain.SYS] = 0.1
    return scores


def _count(words: re.Pattern[str], text: str) -> int:
    return len({match.group().lower() for match in words.finditer(text)})


def _kinds(lead: str, rest: str, notes: str) -> dict[Kind, float]:
    """What the opening says counts most; the notes tell how the edit was made."""
    opening = lead + rest[:1]
    literal = LITERAL_ONLY.search(notes) is not None
    named, built, sized = MECHANISMS.search(opening), STRUCTURE.search(lead), SIZE_CHANGE.search(lead)
    initial = INITIAL.search(lead) or (None if named or built else INITIAL.search(rest[:160]))
    structural = 2.0 * (named is not None) + 2.0 * (built is not None)
    structural += 0.8 * (STRUCTURE.search(rest) is not None) + 0.6 * (MECHANISMS.search(rest) is not None)
    structural += 0.8 * (CODE_EDIT.search(notes) is not None)
    dimensional = 3.2 * (sized is not None) + 1.2 * (SIZE_CHANGE.search(rest[:200]) is not None)
    scalar = 0.5 + 1.2 * (VALUE_CHANGE.search(lead) is not None) + 0.5 * (VALUE_CHANGE.search(rest[:200]) is not None)
    first = min((match.start() for match in (named, built) if match is not None), default=LEAD_CHARS)
    if sized is not None and first < sized.start():
        # "SwiGLU, with mlp_mult 4 -> 2.67 to pay for it": the size serves the mechanism that is named first.
        dimensional *= 0.6
    if literal:
        structural *= 0.4
        dimensional *= 1.2
    if initial is not None and not re.search(r"learn(?:able|ed)|nn\.Parameter|sigmoid|additive|new param", lead):
        # An initial value or a fixed factor: what is computed from the next step on is the same.
        scalar += 3.0
        structural *= 0.5
    return {Kind.STRUCTURAL: structural, Kind.DIMENSIONAL: dimensional, Kind.SCALAR: scalar}


def _margin(scores: list[float]) -> float:
    """0.5 where two readings are equal, towards 1 where one stands alone."""
    first, second = sorted(scores, reverse=True)[:2]
    return 0.5 + 0.5 * (first - second) / (first + 0.5)
