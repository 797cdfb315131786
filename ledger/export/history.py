"""A campaign as a git repository: each trial a commit on its parent, with trailers that lead back to the log."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.text import Text

from ledger.events import (
    BaselineMeasured,
    DiffSubmitted,
    Event,
    HypothesisProposed,
    RunStarted,
    ScoreRecorded,
    TrialAbandoned,
    VerdictReached,
)
from ledger.export.places import new_folder
from ledger.log import EventLog, LedgerError
from ledger.recipes import Recipe
from ledger.terminal import plain

BRANCH = "main"
"""The kept trials; every trial stands under refs/trials/N."""
SUBJECT_CHARS = 72


@dataclass
class Story:
    """What a commit tells of one trial; complete at its verdict, so that later events do not change its hash."""

    number: int
    began_at: str
    proposal: HypothesisProposed | None = None
    recipe: str | None = None
    trust: set[str] = field(default_factory=set)
    outcome: VerdictReached | BaselineMeasured | TrialAbandoned | None = None
    size: int = 0
    """Events of the log up to the outcome."""
    ended_at: str = ""

    @property
    def kept(self) -> bool:
        """Whether it became champion, as the starting recipe does."""
        return isinstance(self.outcome, BaselineMeasured) or self.verdict == "kept"

    @property
    def verdict(self) -> str:
        """Also for trials that got none."""
        match self.outcome:
            case VerdictReached(verdict=verdict):
                return str(verdict)
            case BaselineMeasured():
                return "baseline"
            case TrialAbandoned():
                return "abandoned"
            case _:
                return "open"


def export_git(log: EventLog, campaign: str, target: Path, stop: int) -> str:
    """Write the campaign into a new git repository, through `git fast-import`; the champion is checked out.

    The same events give the same hashes, and more events keep the hashes of concluded trials. Raises LedgerError where
    `target` stands there already, git is missing, or a recipe of the ledger cannot be read.
    """
    git = shutil.which("git")
    if git is None:
        raise LedgerError("git is not installed; the repository is made with `git fast-import`")
    stories = stories_of(log.events(0, stop, campaign), stop)
    with new_folder(target) as folder:
        _git(git, folder, "init", "--quiet", f"--initial-branch={BRANCH}", "--template=")
        stream = b"".join(_stream(log, campaign, stories))
        _git(git, folder, "fast-import", "--quiet", "--date-format=raw", content=stream)
        if any(story.kept for story in stories):
            _git(git, folder, "reset", "--quiet", "--hard")
    kept = sum(story.kept for story in stories)
    return f"{target}: {len(stories)} trials under refs/trials/, {kept} of them on {BRANCH}"


def stories_of(events: Iterable[Event], stop: int) -> list[Story]:
    """The trials of one campaign by number; one that is still open is as of event `stop`."""
    stories: dict[int, Story] = {}
    for event in events:
        if event.trial is None:
            continue
        story = stories.setdefault(event.trial, Story(event.trial, event.recorded_at))
        if story.outcome is not None:
            continue
        story.size, story.ended_at = stop, event.recorded_at
        match event.body:
            case HypothesisProposed() as proposal:
                story.proposal = proposal
            case DiffSubmitted(recipe=recipe) | RunStarted(recipe=recipe):
                story.recipe = recipe
            case ScoreRecorded(trust=trust):
                story.trust.add(trust)
            case VerdictReached() | BaselineMeasured() | TrialAbandoned() as outcome:
                story.outcome, story.size = outcome, event.seq + 1
    return [stories[number] for number in sorted(stories)]


def _stream(log: EventLog, campaign: str, stories: list[Story]) -> Iterator[bytes]:
    """Commands of git-fast-import(1). Marks: a trial N is :N+1, contents have the marks after those."""
    marks: dict[str, int] = {}
    numbers = {story.number for story in stories}
    first_free = max(numbers, default=0) + 2
    origin = log.meta()["origin"]
    champion: int | None = None
    for story in stories:
        files = _files(log, story)
        for text in files.values():
            if text not in marks:
                marks[text] = first_free + len(marks)
                yield b"blob\nmark :%d\n" % marks[text] + _data(text)
        trailers = {"Campaign": campaign, **_trailers(log, story), "Ledger": origin}
        yield b"commit refs/trials/%d\nmark :%d\n" % (story.number, story.number + 1)
        yield _signature("author", story, story.began_at) + _signature("committer", story, story.ended_at)
        yield _data(_message(story, trailers))
        parent = story.proposal.parent if story.proposal else None
        if parent in numbers and parent is not None and parent < story.number:
            yield b"from :%d\n" % (parent + 1)
            if story.kept and champion is not None and champion != parent:
                # The champion before it becomes a second parent: then the branch holds every kept trial.
                yield b"merge :%d\n" % (champion + 1)
        if story.recipe is not None:
            yield b"deleteall\n"
            yield from (b'M 100644 :%d "%s"\n' % (marks[text], path.encode()) for path, text in sorted(files.items()))
        yield b"\n"
        champion = story.number if story.kept else champion
    if champion is not None:
        yield b"reset refs/heads/%s\nfrom :%d\n\n" % (BRANCH.encode(), champion + 1)


def _files(log: EventLog, story: Story) -> dict[str, str]:
    if story.recipe is None:
        return {}
    try:
        recipe = Recipe.load(story.recipe, log.blob)
    except (ValueError, TypeError, AttributeError) as error:
        raise LedgerError(f"{log.path}: the recipe of trial {story.number} cannot be read: {error}") from error
    return {safe_path(path): text for path, text in recipe.files.items()}


def safe_path(path: str) -> str:
    """The path of a recipe in the repository: what git keeps for itself, or takes orders from, gets another name.

    The first character of `.git…` and `git~…`, in any case, is written as `%2E` and `%67`; that of `%…` as `%25`, so
    that two paths never become one.
    """
    return "/".join(
        f"%{ord(part[0]):02X}{part[1:]}" if re.match(r"\.git|git~|%", part, re.IGNORECASE) else part
        for part in path.split("/")
    )


def _trailers(log: EventLog, story: Story) -> dict[str, object]:
    found: dict[str, object] = {"Trial": story.number, "Verdict": story.verdict}
    if isinstance(story.outcome, VerdictReached):
        found |= {"Label": story.outcome.label, "Gain": story.outcome.gain, "P-Value": story.outcome.p_value}
    if isinstance(story.outcome, VerdictReached | BaselineMeasured) and (score := story.outcome.score):
        found |= {"Score": score.mean, "Score-Std": score.std, "Score-N": score.n}
        found |= {"Trust": ",".join(sorted(story.trust))}
    if story.proposal:
        proposal = story.proposal
        found |= {"Specialist": proposal.specialist, "Domain": proposal.claimed_domain, "Operator": proposal.operator}
        found |= {"Expected-Delta": proposal.expected_delta}
    found |= {"Recipe": story.recipe, "Event-Size": story.size, "Event-Root": log.tree(story.size).root().hex()}
    return found


def _message(story: Story, trailers: dict[str, object]) -> str:
    """Subject, texts and trailers. Texts are indented: none of their lines can be a trailer or end the message."""
    hypothesis = (story.proposal.hypothesis or "") if story.proposal else "starting recipe"
    subject = f"Trial {story.number} ({story.verdict}): {_line(hypothesis)}"
    parts = [subject if len(subject) <= SUBJECT_CHARS else subject[: SUBJECT_CHARS - 1] + "…"]
    texts = [hypothesis] if len(subject) > SUBJECT_CHARS or "\n" in hypothesis else []
    texts += [story.proposal.rationale or ""] if story.proposal else []
    match story.outcome:
        case VerdictReached(reason=reason) | TrialAbandoned(reason=reason):
            texts.append(reason)
    for text in filter(None, texts):
        parts.append("\n".join(f"    {_line(line)}" for line in text.split("\n")))
    told = {name: _line(str(value)) for name, value in trailers.items() if value is not None}
    parts.append("\n".join(f"{name}: {value}" for name, value in told.items() if value))
    return "\n\n".join(parts) + "\n"


def _signature(role: str, story: Story, at: str) -> bytes:
    name = _line(story.proposal.specialist if story.proposal else "supervisor")
    name = re.sub(r"[^\w .+-]", "-", name).strip(" .") or "specialist"
    seconds = int(datetime.fromisoformat(at).timestamp())
    return f"{role} {name} <{name.replace(' ', '-')}@labtrail.invalid> {seconds} +0000\n".encode()


def _line(text: str) -> str:
    return plain(Text(text)).plain.strip()


def _data(text: str) -> bytes:
    content = text.encode(errors="replace")
    return b"data %d\n%b\n" % (len(content), content)


def _git(git: str, folder: Path, *arguments: str, content: bytes = b"") -> None:
    """Run git on the new repository and nothing else: no configuration, template or hook of this machine counts."""
    environment = {
        "PATH": str(Path(git).parent), "HOME": str(folder), "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }  # fmt: skip
    command = [git, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, input=content, capture_output=True, check=False)
    if done.returncode:
        said = json.dumps(done.stderr.decode(errors="replace").strip()[-300:])
        raise LedgerError(f"git {arguments[0]} ended with exit code {done.returncode}: {said}")
