"""Recipes and their diffs: what `diff` says, `apply` and `git apply` both do, and nothing else is accepted."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger.recipes import PatchError, Recipe, apply, diff, digest_of

# Marks that str.splitlines takes for line ends and a diff must not: form feed, \x1c, NEL, line separator, lone CR.
LINE = st.text(alphabet=st.sampled_from("ab +-@\\\t\r\f\x1c\x85\u2028é"), max_size=5)
TEXT = st.builds(
    lambda lines, end: "\n".join(lines) + (end if lines else ""),
    st.lists(LINE, max_size=12),
    st.sampled_from(["", "\n", "\r\n"]),
)
PATH = st.sampled_from(["a.py", "b.py", "sub/c.py", "sub/deep/d.txt", "with blank.txt", "é.py", "x b"])
FILES = st.dictionaries(PATH, TEXT, max_size=5).map(Recipe)


@given(FILES, FILES)
@example(Recipe({"a.py": "x"}), Recipe({"a.py": "x\n"}))
@example(Recipe({"a.py": "x\r\ny\r\n"}), Recipe({"a.py": "x\ny\r\n"}))
@example(Recipe({"a.py": "x\fy\n"}), Recipe({"a.py": "x\fz\n"}))
@example(Recipe({"a.py": ""}), Recipe({"a.py": "x"}))
@example(Recipe({"a.py": ""}), Recipe({}))
@example(Recipe({}), Recipe({"a.py": ""}))
def test_apply_turns_a_diff_back_exactly(old: Recipe, new: Recipe) -> None:
    patch = diff(old, new)
    assert apply(patch, old) == new
    assert (patch == "") == (old == new)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=FILES, new=FILES)
@example(Recipe({"a.py": "x"}), Recipe({"a.py": "x\n"}))
@example(Recipe({"with blank.txt": "x\n"}), Recipe({"with blank.txt": "y"}))
@example(Recipe({"a.py": "", "b.py": "b"}), Recipe({"b.py": "", "sub/c.py": ""}))
def test_git_apply_gives_the_same_files(tmp_path: Path, old: Recipe, new: Recipe) -> None:
    folder = tmp_path / "work"
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in old.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    folder.mkdir(exist_ok=True)
    patch = diff(old, new)
    if patch:
        # A repository above the folder would make git skip every file of the patch.
        result = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            input=patch.encode(),
            cwd=folder,
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tmp_path)},
        )
        assert result.returncode == 0, result.stderr.decode()
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert found == {path: text.encode() for path, text in new.files.items()}


@given(FILES, FILES, FILES)
def test_a_diff_applies_to_its_own_parent_only(old: Recipe, new: Recipe, other: Recipe) -> None:
    try:
        applied = apply(diff(old, new), other)
    except PatchError:
        return
    # Where it applies elsewhere, it says the same thing there: the touched files end the same or keep other parts.
    assert apply(diff(other, applied), other) == applied


@settings(max_examples=40)
@given(st.text(max_size=200), FILES)
def test_a_text_that_is_no_diff_raises_nothing_but_patch_error(text: str, old: Recipe) -> None:
    try:
        apply(text, old)
        apply("diff --git a/a.py b/a.py\n" + text, old)
    except PatchError:
        pass


OLD = Recipe({"a.py": "one\ntwo\nthree\n"})
NEW = Recipe({"a.py": "one\n2\nthree\n"})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("-two", "-TWO", "line 2"),
        ("@@ -1,3 +1,3 @@", "@@ -1,2 +1,3 @@", "2 old"),
        ("@@ -1,3 +1,3 @@", "@@ -1,3 +1,4 @@", "4 new"),
        ("@@ -1,3 +1,3 @@", "@@ -9,3 +9,3 @@", "starts at line 9"),
        ("--- a/a.py", "--- a/b.py", "expected `--- a/a.py`"),
        ("diff --git a/a.py b/a.py", "diff --git a/a.py b/b.py", "expected `diff --git"),
        ("+2\n", "+2\n\\ No newline at end of file\n", "without a newline"),
        ("+2", "*2", "expected a line of a diff"),
        ("@@ -1,3 +1,3 @@\n", "", "expected a hunk header"),
    ],
)
def test_a_damaged_diff_is_refused_with_its_place(before: str, after: str, message: str) -> None:
    patch = diff(OLD, NEW)
    assert before in patch
    with pytest.raises(PatchError, match=message):
        apply(patch.replace(before, after), OLD)


def test_a_diff_that_names_a_file_twice_is_refused() -> None:
    with pytest.raises(PatchError, match="twice"):
        apply(diff(OLD, NEW) + diff(NEW, OLD), OLD)


def test_creating_a_file_that_is_there_is_refused() -> None:
    with pytest.raises(PatchError, match="creates it"):
        apply(diff(Recipe({}), OLD), OLD)
    with pytest.raises(PatchError, match="changes it"):
        apply(diff(OLD, NEW), Recipe({}))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../up.py", "a/../b", "", ".", "a//b", "a\nb", "a\tb", "a\x00b", "a/", 'a"b', "a\\b"]
)
def test_paths_that_leave_the_recipe_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        Recipe({path: ""})


def test_a_file_cannot_be_a_folder_too() -> None:
    with pytest.raises(ValueError, match="cannot be a file"):
        Recipe({"a": "", "a/b.py": ""})
    with pytest.raises(PatchError, match="cannot be a file"):
        apply(diff(Recipe({}), Recipe({"a.py/b": ""})), OLD)


def test_equal_files_give_an_equal_digest_in_any_order() -> None:
    assert Recipe({"a": "1", "b": "2"}).digest == Recipe({"b": "2", "a": "1"}).digest
    assert Recipe({"a": "1"}).digest != Recipe({"a": "2"}).digest


def test_blobs_are_enough_to_rebuild_a_version() -> None:
    recipe = Recipe({"a.py": "x = 1\n", "sub/b.txt": "é\r\n"})
    stored = {digest_of(blob): blob for blob in recipe.blobs}
    assert Recipe.load(recipe.digest, stored.__getitem__) == recipe


def test_comments_do_not_change_the_program_and_code_does() -> None:
    base = Recipe({"a.py": "x = 1\n", "data.txt": "1"})
    assert base.program == Recipe({"a.py": "x  =  1  # one\n", "data.txt": "1"}).program
    assert base.program != Recipe({"a.py": "x = 2\n", "data.txt": "1"}).program
    assert base.program != Recipe({"a.py": "x = 1\n", "data.txt": "2"}).program


@pytest.mark.parametrize("text", ["x = (", "\x00", "(" * 5000, "-" * 200_000 + "1", "x." * 100_000 + "y"])
def test_a_file_that_python_cannot_parse_is_a_syntax_error(text: str) -> None:
    with pytest.raises(SyntaxError):
        Recipe({"a.py": text}).program  # noqa: B018


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match=r"a\.bin: expected UTF-8"):
        Recipe.read(tmp_path, ["a.bin"])
