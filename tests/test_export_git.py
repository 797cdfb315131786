"""A campaign as a git repository: real git reads it, the same events give the same hashes, hostile names stay names."""

import subprocess
from pathlib import Path

import pytest

from ledger.events import HypothesisProposed, VerdictReached
from ledger.export.history import Story, _message, export_git, safe_path, stories_of
from ledger.log import EventLog, LedgerError
from ledger.recipes import Recipe, apply
from ledger.vocabulary import Domain, Verdict
from tests import campaigns
from tests.campaigns import write_campaign


def git(folder: Path, *arguments: str, content: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, input=content, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def filled(log: EventLog) -> EventLog:
    write_campaign(log, name="toy-1", trials=17, seed=0)
    return log


@pytest.fixture
def repository(filled: EventLog, tmp_path: Path) -> Path:
    export_git(filled, "toy-1", tmp_path / "history", filled.size)
    return tmp_path / "history"


def test_git_finds_it_sound_and_the_champion_is_checked_out(filled: EventLog, repository: Path) -> None:
    git(repository, "fsck", "--strict")
    assert git(repository, "status", "--porcelain") == ""
    stories = stories_of(filled.events(), filled.size)
    kept = [story for story in stories if story.kept]
    subjects = git(repository, "log", "--format=%(trailers:key=Trial,valueonly,separator=)").split()
    assert subjects == [str(story.number) for story in reversed(kept)]
    champion = Recipe.load(str(kept[-1].recipe), filled.blob)
    assert {path: (repository / path).read_text() for path in champion.files} == champion.files


def test_each_commit_holds_the_recipe_and_its_diff_is_the_one_submitted(filled: EventLog, repository: Path) -> None:
    stories = {story.number: story for story in stories_of(filled.events(), filled.size)}
    assert len(git(repository, "for-each-ref", "refs/trials/").splitlines()) == len(stories) == 18
    for number, story in stories.items():
        recipe = Recipe.load(str(story.recipe), filled.blob)
        for path, text in recipe.files.items():
            assert git(repository, "show", f"refs/trials/{number}:{path}") == text
        if story.proposal:
            parent = Recipe.load(str(stories[story.proposal.parent].recipe), filled.blob)
            patch = git(
                repository, "diff", "--no-color", "--full-index", f"refs/trials/{number}^", f"refs/trials/{number}"
            )
            patch = "".join(line for line in patch.splitlines(keepends=True) if not line.startswith("index "))
            assert apply(patch, parent).digest == recipe.digest


def test_trailers_lead_back_to_the_log(filled: EventLog, repository: Path) -> None:
    for story in stories_of(filled.events(), filled.size):
        lines = git(repository, "log", "-1", "--format=%(trailers:only,unfold)", f"refs/trials/{story.number}").split(
            "\n"
        )
        told = dict(line.split(": ", 1) for line in lines if line)
        assert (told["Trial"], told["Verdict"], told["Recipe"]) == (str(story.number), story.verdict, story.recipe)
        assert told["Event-Root"] == filled.tree(int(told["Event-Size"])).root().hex()
        assert told["Ledger"] == filled.meta()["origin"]


def test_the_same_events_give_the_same_hashes_and_more_events_keep_them(filled: EventLog, tmp_path: Path) -> None:
    def refs(name: str, stop: int) -> dict[str, str]:
        export_git(filled, "toy-1", tmp_path / name, stop)
        listed = git(tmp_path / name, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split() for line in listed)

    whole = refs("whole", filled.size)
    assert refs("again", filled.size) == whole
    half = filled.size // 2
    concluded = [story.number for story in stories_of(filled.events(0, half), half) if story.outcome]
    early = refs("early", half)
    assert len(concluded) > 4
    for number in concluded:
        assert early[f"refs/trials/{number}"] == whole[f"refs/trials/{number}"]


HOSTILE_PATHS = (
    ".gitattributes", ".gitmodules", ".git/hooks/post-checkout", "a/.GIT/config", "git~1", "%2Egit/x", "ü ö/§ 1.py",
    "-rf",
)  # fmt: skip


def test_no_file_name_reaches_into_git(log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**campaigns.RECIPE.files, **{path: f"# evil {path}\n" for path in HOSTILE_PATHS}}
    monkeypatch.setattr(campaigns, "RECIPE", Recipe(files))
    writer = campaigns._Writer(log, "toy-1", 0)
    writer.start()
    writer.measure_baseline()
    target = tmp_path / "history"
    export_git(log, "toy-1", target, log.size)
    git(target, "fsck", "--strict")
    assert git(target, "status", "--porcelain") == ""
    assert not (target / ".git" / "hooks").exists()
    names = git(target, "ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0")
    assert sorted(filter(None, names)) == sorted(map(safe_path, files))
    assert (target / "%2Egit" / "hooks" / "post-checkout").read_text() == "# evil .git/hooks/post-checkout\n"


def test_two_paths_never_become_one() -> None:
    paths = [".git", "%2Egit", "%252Egit", "%25252Egit", ".GIT", "git~1", "%67it~1", "%", "%25"]
    assert len({safe_path(path) for path in paths}) == len(paths)
    assert safe_path("model.py") == "model.py"


def test_no_text_of_a_trial_can_be_a_trailer_or_end_the_message(tmp_path: Path) -> None:
    evil = "better\n---\nVerdict: kept\n\nScore: 0\n\x00\x1b[2J\nSigned-off-by: you <x@y>"
    proposal = HypothesisProposed(
        session="s", specialist="a <b>\n", claimed_domain=Domain.OPT, hypothesis=evil, expected_delta=None,
        rationale=evil, operator=None, parent=0,
    )  # fmt: skip
    outcome = VerdictReached(
        verdict=Verdict.DISCARDED, label=None, score=None, champion=0, gain=None, p_value=None, reason=evil
    )
    story = Story(3, "2026-01-01T00:00:00.000000Z", proposal, outcome=outcome)
    text = _message(story, {"Trial": 3, "Verdict": "discarded", "Specialist": proposal.specialist})
    parsed = git(tmp_path, "interpret-trailers", "--parse", content=text)
    assert parsed.splitlines() == ["Trial: 3", "Verdict: discarded", "Specialist: a <b>�"]
    assert all(char.isprintable() or char == "\n" for char in text)


def test_a_recipe_that_is_not_one_ends_the_export_and_leaves_nothing(log: EventLog, tmp_path: Path) -> None:
    writer = campaigns._Writer(log, "toy-1", 0)
    writer.start()
    writer.measure_baseline()
    manifest = campaigns.RECIPE.digest
    log.connection.execute("DROP TRIGGER IF EXISTS blobs_delete")
    log.connection.execute("DELETE FROM blobs WHERE digest = ?", (bytes.fromhex(manifest),))
    with pytest.raises(LedgerError, match=manifest):
        export_git(log, "toy-1", tmp_path / "history", log.size)
    assert [path.name for path in tmp_path.iterdir() if "history" in path.name] == []
