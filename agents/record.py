"""One campaign's record: the log and the state that follows from it, always in step."""

from collections.abc import Callable
from hashlib import sha256

from ledger.campaign import Campaign, GrammarError, Trial
from ledger.events import Body, Draft, Event, FailureLabelled
from ledger.log import EventLog
from ledger.recipes import Recipe
from ledger.vocabulary import FailureLabel

Observer = Callable[[Event, Campaign], None]
"""Told of every event after it is in the log and in the state."""


class Record:
    """Appends to the log and applies what was appended; everything it knows can be read back from the log."""

    def __init__(self, log: EventLog, campaign: str, observe: Observer) -> None:
        self.log = log
        self.campaign = Campaign.replay(campaign, log.events(campaign=campaign))
        self._observe = observe
        self._recipes: dict[int, Recipe] = {}

    def append(self, actor: str, *bodies: Body, trial: int | None = None, blobs: tuple[bytes, ...] = ()) -> None:
        """Append events of one actor in one transaction; the last one brings the blobs."""
        drafts = [Draft(body, actor, self.campaign.id, trial) for body in bodies]
        if blobs:
            drafts[-1] = Draft(bodies[-1], actor, self.campaign.id, trial, blobs)
        self.store(*drafts)

    def store(self, *drafts: Draft) -> None:
        """Append drafts in one transaction, then take them into the state."""
        for event in self.log.append(drafts, expect=self.log.size):
            try:
                self.campaign.apply(event)
            except GrammarError as error:
                raise AssertionError(f"the supervisor broke the grammar with event {event.seq}") from error
            self._observe(event, self.campaign)

    def fail(self, number: int, label: FailureLabel, detail: str, run: int | None) -> Trial:
        """Label a failure; of the whole trial where `run` is None."""
        self.append("evaluator:labels", FailureLabelled(label=label, run=run, detail=detail), trial=number)
        return self.trial(number)

    def trial(self, number: int) -> Trial:
        """State of a trial, new where it has not begun."""
        return self.campaign.trials.get(number, Trial(number))

    def recipe(self, number: int) -> Recipe:
        """Recipe of a trial, from the ledger's blobs."""
        if number not in self._recipes:
            assert self.campaign.started is not None
            digest = self.trial(number).recipe or self.campaign.started.recipe
            self._recipes[number] = Recipe.load(digest, self.log.blob)
        return self._recipes[number]

    def draw(self, *parts: object) -> int:
        """A number below 2^32 that depends on campaign, search seed and parts alone: resuming draws the same."""
        assert self.campaign.started is not None
        text = ":".join(str(part) for part in (self.campaign.id, self.campaign.started.search_seed, *parts))
        return int.from_bytes(sha256(text.encode()).digest()[:4])
