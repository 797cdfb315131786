"""What the evaluator signs: the statement that ties a score to its trial, artifact and instrument."""

import base64
import binascii
import json

from ledger.events import CertificationRecorded, ScoreRecorded
from ledger.keys import SigningKey, VerifierKey

Signed = ScoreRecorded | CertificationRecorded


def statement(campaign: str, trial: int, score: Signed) -> bytes:
    """Canonical bytes of a score: JSON with sorted keys over campaign, trial, type and every field but the signature.

    All numbers in it are integers or decimal strings, so that any JSON writer gives the same bytes.
    """
    fields = score.model_dump(mode="json", exclude={"signature"})
    return json.dumps(
        {"campaign": campaign, "trial": trial, "type": score.TYPE, "version": score.VERSION, **fields},
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


def sign(key: SigningKey, campaign: str, trial: int, score: Signed) -> str:
    """Base64 of the evaluator's Ed25519 signature over the statement."""
    return base64.b64encode(key.sign(statement(campaign, trial, score))).decode()


def is_signed(key: VerifierKey, campaign: str, trial: int, score: Signed) -> bool:
    """Whether the score carries this evaluator's signature for exactly this campaign and trial."""
    try:
        signature = base64.b64decode(score.signature, validate=True)
    except binascii.Error:
        return False
    if base64.b64encode(signature).decode() != score.signature:
        return False
    return key.verifies(statement(campaign, trial, score), signature)
