"""The log against a model in memory: any order of appends, retries, refusals, reopenings, reads and proofs."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.events import Draft, Event, EventError
from ledger.log import ConflictError, EventLog, Head
from ledger.merkle import check_consistency, check_inclusion, root_of
from tests.test_ledger import check_whole, draft


class LogMachine(RuleBasedStateMachine):
    """The model is a list of drafts and the leaves that the log gave them."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.log = EventLog.create(self.folder / "ledger.db")
        self.reader = EventLog.read_only(self.log.path)
        self.drafts: list[Draft] = []
        self.events: list[Event] = []
        self.heads = [self.log.head()]

    def teardown(self) -> None:
        if hasattr(self, "log"):
            check_whole(self.log)
            self.reader.close()
            self.log.close()
            shutil.rmtree(self.folder)

    @rule(count=st.one_of(st.integers(1, 4), st.sampled_from([255, 256, 257])), blob=st.binary(max_size=8))
    def append(self, count: int, blob: bytes) -> None:
        batch = [draft(f"{len(self.drafts)}-{number}", (blob,)) for number in range(count)]
        self._take(batch, self.log.append(batch, expect=len(self.drafts)))

    @precondition(lambda self: self.drafts)
    @rule(data=st.data(), fresh=st.integers(0, 2))
    def append_known_and_new_together(self, data: st.DataObject, fresh: int) -> None:
        index = data.draw(st.integers(0, len(self.drafts) - 1))
        batch = [draft(f"new {number}") for number in range(fresh)]
        known, *events = self.log.append([self.drafts[index], *batch])
        assert known == self.events[index]
        self._take(batch, events)

    @precondition(lambda self: self.drafts)
    @rule(data=st.data())
    def refuse_another_event_under_a_known_id(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.drafts) - 1))
        with contextlib.suppress(ConflictError):
            self.log.append([draft("fine"), draft("other", id=self.drafts[index].id)])
            raise AssertionError("an id stood for two events")

    @rule()
    def refuse_a_batch_with_one_bad_draft(self) -> None:
        with contextlib.suppress(EventError):
            self.log.append([draft("fine", (b"never stored",)), draft("x" * 70_000)])
            raise AssertionError("an entry was too large")

    @rule(distance=st.integers(1, 5))
    def refuse_a_wrong_expectation(self, distance: int) -> None:
        with contextlib.suppress(ConflictError):
            self.log.append([draft("late")], expect=len(self.drafts) + distance)
            raise AssertionError("the log was not as expected")

    @rule()
    def reopen(self) -> None:
        path = self.log.path
        self.log.close()
        self.log = EventLog.open(path)

    @rule()
    def read(self) -> None:
        assert self.reader.refresh() == len(self.drafts)
        assert list(self.reader.events()) == self.events

    @precondition(lambda self: self.drafts)
    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.drafts) - 1))
        head = self.log.head()
        [(_, _, leaf)] = self.log.entries(index, index + 1)
        check_inclusion(leaf, index, head.size, self.log.tree().inclusion_proof(index), head.root)
        old = data.draw(st.sampled_from(self.heads))
        if old.size:
            check_consistency(old.size, old.root, head.size, head.root, self.log.tree().consistency_proof(old.size))

    @invariant()
    def head_follows_from_the_leaves(self) -> None:
        if hasattr(self, "log"):
            leaves = [leaf for _, _, leaf in self.log.entries()]
            assert self.log.head() == Head(len(self.drafts), root_of(leaves))
            assert self.log.size == len(self.drafts)

    def _take(self, drafts: list[Draft], events: list[Event]) -> None:
        assert [event.seq for event in events] == list(range(len(self.drafts), len(self.drafts) + len(drafts)))
        self.drafts += drafts
        self.events += events
        self.heads.append(self.log.head())


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
