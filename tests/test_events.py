"""Events: what encode writes decode reads, and every other byte string is refused by name."""

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ledger import events as events_module
from ledger.bodies import BODIES, CATALOGUE, CorrectionRecorded, ProcessFacts, RunFinished
from ledger.envelope import ENVELOPE
from ledger.events import (
    MAX_ENTRY_BYTES,
    UPCASTERS,
    Draft,
    Event,
    EventError,
    RunStarted,
    ScoreRecorded,
    Summary,
    decimal,
    decode,
    encode,
)
from ledger.parts import MAX_SAFE_INTEGER, Body

DIGEST = "ab" * 32
AT = "2026-01-02T03:04:05.000006Z"
RUN = RunStarted(run=0, seed=7, attempt=0, recipe=DIGEST, runner="local", isolation="none")
PROCESS = ProcessFacts(
    exit_code=0, signal=None, killed_for=None, wall_s=1.5, cpu_s=1.25, max_rss_bytes=4096, log_bytes=10
)
FINISHED = RunFinished(
    run=0, train=PROCESS, predict=(PROCESS,), artifact=DIGEST, artifact_bytes=12, log=DIGEST, load_1m=0.5
)

# What `encode` wrote for version 1 of run_finished, byte for byte: old ledgers hold it for good.
RUN_FINISHED_V1 = (
    b'{"seq":3,"id":"0193a0b0-0000-7000-8000-000000000003","type":"run_finished","version":1,"campaign":"c1","trial":0,'
    b'"actor":"runner:local","recorded_at":"2026-01-02T03:04:05.000006Z","prev":"'
    + b"cd"
    * 32
    + b'","blobs":{},"body":'
    b'{"run":0,"train":{"exit_code":0,"signal":null,"killed_for":null,"wall_s":1.5,"cpu_s":1.25,"max_rss_bytes":4096,'
    b'"log_bytes":10},"predict":[],"artifact":null,"artifact_bytes":null,"log":"' + b"ab" * 32 + b'","load_1m":0.5}}'
)


def entry(body: Body = RUN, blobs: Mapping[str, str] | None = None, **fields: Any) -> bytes:
    draft = Draft(body, **{"actor": "runner:local", "campaign": "c1", "trial": 0, **fields})
    return encode(draft, 5, AT, "cd" * 32, blobs or {}).entry


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(entry()), **fields}).encode()


def changed_body(**fields: Any) -> bytes:
    return changed(body={**json.loads(entry())["body"], **fields})


@pytest.mark.parametrize("model", BODIES, ids=lambda model: model.TYPE)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_type_is_read_back_as_it_was_written(model: type[Body], data: st.DataObject) -> None:
    body = data.draw(_bodies(model))
    draft = Draft(body, 'person:Zoë \\ "x"', "camp\u2028aign é", 3)
    written = encode(draft, 9, AT, DIGEST, {DIGEST: "cd" * 32})
    event = decode(*written)
    assert event == Event.at(draft, 9, AT, DIGEST, {DIGEST: "cd" * 32})
    loose = json.dumps(json.loads(written.entry), indent=1).encode()
    assert decode(loose, written.texts, written.salts) == event, "both ways of decoding agree"


def _bodies(model: type[Any]) -> st.SearchStrategy[Any]:
    """Bodies built field by field: hypothesis draws from the annotations, constrained texts by their pattern."""
    return st.fixed_dictionaries({name: _values(field) for name, field in model.model_fields.items()}).map(
        lambda fields: model(**fields)
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _values(field: Any) -> st.SearchStrategy[Any]:
    return _typed(field.annotation, field.metadata)


def _typed(annotation: Any, metadata: Sequence[Any] = ()) -> st.SearchStrategy[Any]:
    if hasattr(annotation, "__metadata__"):
        return _typed(annotation.__origin__, annotation.__metadata__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return st.lists(_typed(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(_typed(arguments[0]), _typed(arguments[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(arguments)
    if arguments:
        return st.one_of(*(_typed(argument, metadata) for argument in arguments))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _bodies(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if annotation is str:
        return _texts(metadata)
    plain = {bool: st.booleans(), int: st.integers(0, MAX_SAFE_INTEGER), float: st.floats(0, 1e300)}
    return plain.get(annotation, st.none())


def _texts(metadata: Sequence[Any]) -> st.SearchStrategy[str]:
    pattern = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    if pattern:
        return st.from_regex(re.compile(pattern.replace("$", r"\Z"), re.ASCII))
    return TEXT.filter(bool) if metadata else TEXT


def test_an_entry_is_json_with_the_fields_in_order() -> None:
    written = entry()
    assert list(json.loads(written)) == list(ENVELOPE)
    assert b'"seq":5,"id":"' in written
    assert b" " not in written


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["flip", "insert", "cut", "repeat"]))
def test_both_ways_of_decoding_agree_on_damaged_entries(place: int, byte: int, how: str) -> None:
    written = entry(FINISHED, {DIGEST: "cd" * 32})
    at = place % len(written)
    damaged = {
        "flip": written[:at] + bytes([byte]) + written[at + 1 :],
        "insert": written[:at] + bytes([byte]) + written[at:],
        "cut": written[:at] + written[at + 1 + byte :],
        "repeat": written[: at + byte] + written[at:],
    }[how]
    fast = events_module._decode_canonical(damaged)
    try:
        slow = events_module._decode_any(damaged)
    except EventError:
        assert fast is None
    else:
        assert fast is None or fast == slow


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_event_error(content: bytes) -> None:
    for text in (content, entry()[:-1] + content, b'{"seq":' + content + b"}"):
        with contextlib.suppress(EventError):
            decode(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(type="trial_praised"), "unknown event type 'trial_praised'"),
        (changed(version=2), "unknown version 2 of run_started"),
        (changed(version=0), "unknown version 0 of run_started"),
        (changed(version=True), "field 'version' of the envelope"),
        (changed(mood="good"), "unknown field 'mood' in the envelope"),
        (changed_body(mood="good"), "run_started version 1, field mood"),
        (changed_body(seed="7"), "run_started version 1, field seed"),
        (changed_body(seed=7.0), "run_started version 1, field seed"),
        (changed_body(seed=-1), "run_started version 1, field seed"),
        (changed_body(seed=2**53), "integer 9007199254740992 is beyond 2\\^53"),
        (changed_body(recipe="AB" * 32), "run_started version 1, field recipe"),
        (changed_body(recipe=DIGEST + "\n"), "run_started version 1, field recipe"),
        (changed(actor="nobody:x"), "expected an actor"),
        (changed(actor="runner:"), "expected an actor"),
        (changed(trial=-1), "expected a trial number"),
        (changed(trial=True), "field 'trial' of the envelope"),
        (changed(campaign=""), "expected a campaign"),
        (changed(campaign="a\x00b"), "expected a campaign"),
        (changed(campaign="\ud800"), "expected a campaign"),
        (changed(id='"'), "expected an id"),
        (changed(seq=-1), "field 'seq'"),
        (changed(recorded_at="2026-02-30T00:00:00.000000Z"), "field 'recorded_at'"),
        (changed(recorded_at="2026-01-02T03:04:05Z"), "field 'recorded_at'"),
        (changed(recorded_at="٢026-01-02T03:04:05.000006Z"), "field 'recorded_at'"),
        (changed(prev="0"), "SHA-256"),
        (changed(blobs={DIGEST: 1}), "SHA-256"),
        (changed(body=[]), "field 'body' of the envelope"),
        (entry().replace(b'"seed":7', b'"seed":7,"seed":8'), "duplicate key 'seed'"),
        (entry().replace(b'"seq":5', b'"seq":5,"seq":5'), "duplicate key 'seq'"),
        (entry().replace(b'"seed":7', b'"seed":NaN'), "NaN is not JSON"),
        (entry().replace(b'"seed":7', b'"seed":-Infinity'), "-Infinity is not JSON"),
        (entry().replace(b'"seed":7,', b""), "field seed: Field required"),
        (entry().replace(b'"trial":0,', b""), "field 'trial' is missing"),
        (entry().decode().encode("utf-16"), "UTF-8"),
        (b"\xef\xbb\xbf" + entry(), "do not parse"),
        (entry() + b"{}", "do not parse"),
        (b"[" * 100_000, "do not parse"),
        (b"9" * 5000, "do not parse"),
        (b"[]", "expected a JSON object, found list"),
        (b"", "do not parse"),
    ],
)
def test_what_is_wrong_is_named(content: bytes, message: str) -> None:
    with pytest.raises(EventError, match=message):
        decode(content)


def test_numbers_that_overflow_to_infinity_are_refused() -> None:
    with pytest.raises(EventError, match=r"run_finished version 3, field load_1m"):
        decode(entry(FINISHED).replace(b'"load_1m":0.5', b'"load_1m":1e999'))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_before_they_are_written(value: float) -> None:
    with pytest.raises(ValidationError):
        RunFinished(**{**FINISHED.model_dump(), "load_1m": value})
    with pytest.raises(ValueError, match="failure label"):
        decimal(value)


@pytest.mark.parametrize("text", ["nan", "inf", "1.", ".5", "1_0", "0x1", "1e", " 1", "1\n", "", "+1", "١"])
def test_decimals_are_plain_finite_numbers(text: str) -> None:
    with pytest.raises(ValidationError):
        Summary(mean=text, std="0.0", n=1)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_reads_back_equal(value: float) -> None:
    assert float(Summary(mean=decimal(value), std="0.0", n=1).mean) == value


def test_an_entry_too_large_says_what_to_do() -> None:
    def size(length: int) -> int:
        body = CorrectionRecorded(target=0, author="me", reason="r", statement="x" * length)
        written = encode(Draft(body, "person:me"), 5, AT, "cd" * 32, {})
        return len(written.entry) + len(written.texts or b"")

    room = MAX_ENTRY_BYTES - size(0)
    assert size(room) == MAX_ENTRY_BYTES
    with pytest.raises(EventError, match="store the large field as a blob"):
        size(room + 1)


def test_text_that_is_not_unicode_is_refused() -> None:
    # Raised where the body is made or where it is written, never stored as something else.
    with pytest.raises((EventError, ValidationError)):
        entry(CorrectionRecorded(target=0, author="\ud800", reason="r", statement=""))


@pytest.mark.parametrize(
    "fields",
    [
        {"actor": "supervisor"},
        {"actor": "god:x"},
        {"actor": "runner:a\nb"},
        {"campaign": ""},
        {"campaign": "a\nb"},
        {"campaign": 5},
        {"trial": -1},
        {"trial": True},
        {"trial": 2**53},
        {"id": ""},
        {"id": 'a"b'},
        {"id": "é"},
        {"id": 5},
    ],
)
def test_a_draft_that_could_not_be_read_back_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Draft(RUN, **{"actor": "runner:local", **fields})


def test_ids_are_unique_and_sorted_by_time() -> None:
    ids = [Draft(RUN, "runner:local").id for _ in range(2000)]
    assert sorted(set(ids)) == ids


def test_bodies_and_events_cannot_be_changed() -> None:
    event = decode(entry())
    with pytest.raises(AttributeError):
        event.seq = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        event.body.run = 1  # type: ignore[attr-defined]


def test_version_1_of_run_finished_is_read_as_version_3() -> None:
    event = decode(RUN_FINISHED_V1)
    assert event.version == 1, "the stored version stays visible"
    assert isinstance(event.body, RunFinished)
    assert event.body.accelerator_peak_bytes is None
    assert (event.body.host, event.body.gpus, event.body.threads) == (None, None, None)
    assert (event.body.train.written_bytes, event.body.train.waited_s) == (None, None)
    assert event.body.train == PROCESS


def test_version_1_of_run_finished_may_not_hold_the_field_of_version_2() -> None:
    forged = RUN_FINISHED_V1[:-2] + b',"accelerator_peak_bytes":5}}'
    with pytest.raises(EventError, match="run_finished version 1, unknown field 'accelerator_peak_bytes'"):
        decode(forged)


def test_version_2_of_run_finished_may_not_hold_the_fields_of_version_3() -> None:
    forged = RUN_FINISHED_V1.replace(b'"version":1', b'"version":2')[:-2] + b',"accelerator_peak_bytes":5,"host":"m"}}'
    with pytest.raises(EventError, match="run_finished version 2, unknown field 'host'"):
        decode(forged)


def test_version_2_of_run_finished_must_hold_its_field() -> None:
    with pytest.raises(EventError, match="run_finished version 2, field accelerator_peak_bytes: Field required"):
        decode(RUN_FINISHED_V1.replace(b'"version":1', b'"version":2'))


def test_every_old_version_has_an_upcaster_and_no_upcaster_is_left_over() -> None:
    needed = {(model.TYPE, old) for model in BODIES for old in range(1, model.VERSION)}
    assert needed == UPCASTERS.keys()


def test_types_are_literal_snake_case_and_unique() -> None:
    assert len(CATALOGUE) == len(BODIES)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind) for kind in CATALOGUE)
    assert CATALOGUE["score_recorded"] is ScoreRecorded
