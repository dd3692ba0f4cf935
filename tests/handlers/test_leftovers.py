"""What uploads of a node that was killed leave behind is removed, and nothing else."""

import fcntl
import logging
import os
from pathlib import Path

import pytest

from restpipe.handlers.leftovers import UPLOAD_PREFIX, make_upload, remove_leftovers

NAME = f"{UPLOAD_PREFIX}0123456789abcdef"


def upload_in(directory: Path) -> tuple[str, int]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return make_upload(descriptor)
    finally:
        os.close(descriptor)


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_leftovers_are_removed_wherever_they_are_and_uploads_under_way_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / "sub" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / NAME).touch()
    (deep / NAME).write_text("half of it")
    kept, descriptor = upload_in(deep)
    with caplog.at_level(logging.INFO, "restpipe"):
        remove_leftovers(tmp_path)
        assert names(tmp_path) == {"sub", "sub/deep", f"sub/deep/{kept}"}
        assert caplog.messages == [f"removed 2 uploads below {tmp_path} that were never completed"]
        os.close(descriptor)  # as the end of its process does
        remove_leftovers(tmp_path)
    assert names(tmp_path) == {"sub", "sub/deep"}


@pytest.mark.parametrize("name", [UPLOAD_PREFIX, f"{UPLOAD_PREFIX}notes", f"{NAME}0", f"a{NAME}", "a.txt"])
def test_files_of_other_names_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {name}


def test_nothing_that_a_link_leads_to_and_no_directory_is_removed(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (other / NAME).touch()
    (root / "link").symlink_to(other)
    (root / NAME).symlink_to(other / NAME)
    (other / "sub" / NAME).mkdir(parents=True)
    remove_leftovers(root)
    remove_leftovers(other / "sub")
    assert names(tmp_path) == {
        "root", "other", "root/link", f"root/{NAME}", f"other/{NAME}", "other/sub", f"other/sub/{NAME}",
    }  # fmt: skip


def test_an_upload_that_is_taken_for_a_leftover_before_it_is_locked_gets_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removed: list[str] = []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(names(tmp_path))
            (tmp_path / removed[0]).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    name, descriptor = upload_in(tmp_path)
    os.close(descriptor)
    assert names(tmp_path) == {name} != set(removed)


def test_where_there_are_no_locks_uploads_work_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    name, descriptor = upload_in(tmp_path)
    os.close(descriptor)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {name}
