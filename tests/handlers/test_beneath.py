"""No path leads out of the directory, and no file that is found there makes anybody wait."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restpipe.handlers.beneath import (
    DEEPEST,
    BadNameError,
    LeadsOutError,
    NoFileError,
    check_name,
    located,
    open_to_read,
)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file beside it that nobody may see."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("inside")
    before = open_files()
    yield root
    assert open_files() == before


# Names that are there, and names that are none.
ENTRIES = ["a", "b", "file", "..", ".", "", "secret", "root", "in", "out", "up", "x/y"]


def content(root: Path, *names: str) -> str:
    with located(root, names) as place:
        descriptor = open_to_read(place)
    with os.fdopen(descriptor) as file:
        return file.read()


def test_a_file_is_found_by_the_names_on_its_way(root: Path) -> None:
    assert content(root, "a", "b", "file") == "inside"


def test_no_name_at_all_is_the_directory_itself(root: Path) -> None:
    with located(root, []) as place:
        descriptor = open_to_read(place)
    assert os.fstat(descriptor).st_ino == inode(root)
    os.close(descriptor)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../secret", "/etc/passwd", "a\0b", "\0"])
def test_what_is_no_name_is_refused_wherever_it_stands(root: Path, name: str) -> None:
    for names in ([name], ["a", name], [name, "a"]):
        with pytest.raises(BadNameError), located(root, names):
            raise AssertionError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ENTRIES) | st.text(max_size=3), max_size=6))
def test_whatever_the_names_are_nothing_outside_is_found(root: Path, names: list[str]) -> None:
    for name, target in (("in", "a/b"), ("out", "../secret"), ("up", "..")):
        for directory in (root, root / "a"):
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(target)
    inside = [inode(each) for each in (root, root / "a", root / "a" / "b", root / "a" / "b" / "file")]
    try:
        with located(root, names) as place:
            assert os.fstat(place.directory).st_ino in inside
            descriptor = open_to_read(place)
    except (BadNameError, OSError):
        return
    assert os.fstat(descriptor).st_ino in inside
    os.close(descriptor)


@given(st.text())
def test_a_name_that_is_let_through_names_an_entry_and_no_path(name: str) -> None:
    try:
        check_name(name)
    except BadNameError:
        return
    assert Path("/root").joinpath(name).parent == Path("/root")
    assert Path(name).name == name


@pytest.mark.parametrize("target", ["b/file", "./b//file", "b/../b/file", "../a/b/file", "b/again"])
def test_a_link_is_followed_where_it_stays_within(root: Path, target: str) -> None:
    (root / "a" / "b" / "again").symlink_to("file")
    (root / "a" / "link").symlink_to(target)
    assert content(root, "a", "link") == "inside"


def test_a_link_to_a_directory_is_followed_on_the_way(root: Path) -> None:
    (root / "link").symlink_to("a/b/")
    assert content(root, "link", "file") == "inside"


@pytest.mark.parametrize("target", ["../secret", "a/../../secret", "/etc/passwd", "..", "/", "a/out", "../root/a"])
@pytest.mark.parametrize("names", [["link"], ["link", "secret"]])
def test_a_link_that_leads_out_is_refused(root: Path, target: str, names: list[str]) -> None:
    (root / "a" / "out").symlink_to("../../secret")
    (root / "link").symlink_to(target)
    with pytest.raises(LeadsOutError), located(root, names):
        raise AssertionError


def test_links_in_a_circle_are_refused(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with pytest.raises(OSError, match="levels of symbolic links"), located(root, ["one"]):
        raise AssertionError


def test_a_directory_that_becomes_a_link_on_the_way_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.readlink

    def swapped(name: str, *, dir_fd: int) -> str:
        """Tell what is there, and put a link in its place before it is opened."""
        try:
            return real(name, dir_fd=dir_fd)
        finally:
            if name == "b" and not (root / "a" / "b").is_symlink():
                (root / "a" / "b").rename(root / "moved")
                (root / "a" / "b").symlink_to("../..")

    monkeypatch.setattr(os, "readlink", swapped)
    with pytest.raises(NotADirectoryError), located(root, ["a", "b", "secret"]):
        raise AssertionError


def test_a_file_that_becomes_a_link_is_not_opened(root: Path) -> None:
    with located(root, ["a", "file"]) as place:
        (root / "a" / "file").symlink_to("../../secret")
        with pytest.raises(NoFileError):
            open_to_read(place)


def test_a_directory_that_is_moved_out_meanwhile_leads_back_to_none_above_it(root: Path, tmp_path: Path) -> None:
    (root / "a" / "b" / "link").symlink_to("../../a/b/file")
    with located(root, ["a", "b", "link"]) as place:
        (root / "a").rename(tmp_path / "elsewhere")
        descriptor = open_to_read(place)
    assert os.read(descriptor, 10) == b"inside"
    os.close(descriptor)


def test_what_is_neither_file_nor_directory_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        for name in ("fifo", "socket"):
            with pytest.raises(NoFileError):
                content(root, name)
    with pytest.raises(NoFileError):
        content(Path("/dev"), "null")


def test_a_file_that_becomes_a_fifo_makes_nobody_wait(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "fifo")
    of_file = (root / "a" / "b" / "file").stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: of_file)
    with pytest.raises(NoFileError):
        content(root, "fifo")


def test_a_file_that_becomes_a_link_between_two_looks_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "out").symlink_to("../secret")
    of_file = (root / "a" / "b" / "file").stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: of_file)
    with located(root, ["out"], follow_last=False) as place, pytest.raises(OSError, match="symbolic links"):
        open_to_read(place)


def test_a_path_that_is_too_deep_is_refused(root: Path) -> None:
    deepest = ["d"] * DEEPEST
    with located(root, [*deepest, "file"], make_directories=True) as place:
        assert place.name == "file"
    with pytest.raises(BadNameError), located(root, [*deepest, "d", "file"], make_directories=True):
        raise AssertionError


def test_directories_are_made_where_that_is_asked_for(root: Path) -> None:
    with pytest.raises(FileNotFoundError), located(root, ["new", "file"]):
        raise AssertionError
    with located(root, ["a", "new", "er", "file"], make_directories=True):
        assert (root / "a" / "new" / "er").is_dir()
        assert not (root / "a" / "new" / "er" / "file").exists()


def test_the_last_link_is_found_itself_where_that_is_asked_for(root: Path) -> None:
    (root / "out").symlink_to("/etc/passwd")
    with located(root, ["out"], follow_last=False) as place:
        assert place.name == "out"
