"""A directory behind NAT: read, resumed and written by curl, and never left."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_curl import PATIENCE, Curl, curl
from e2e_processes import Node, Site

MIB = 1024 * 1024


class Files:
    """A client that serves a directory, seen from its server."""

    def __init__(self, directory: Path, server: Node, client: Node) -> None:
        self.directory = directory
        self.nodes = server, client
        self.url = f"{server.web}/client/client/files"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with Site(tmp_path_factory.mktemp("files")) as site:
        directory = site.directory / "served"
        directory.mkdir()
        server, client = site.pair(RP_FILES=str(directory), RP_FILES_WRITABLE="1")
        server.wait_for("client client connected")
        yield Files(directory, server, client)


def sparse(path: Path, size: int) -> None:
    """Make a file that is mostly a hole, and not the same anywhere around."""
    with path.open("wb") as file:
        file.truncate(size)
        for place in range(0, size - 8, 61 * MIB):
            file.seek(place)
            file.write(place.to_bytes(8))
        file.seek(size - 8)
        file.write(size.to_bytes(8))


@contextmanager
def bounded_memory(*nodes: Node) -> Iterator[None]:
    """See that the most memory a node ever had is not much more than it had before."""

    def peaks() -> list[int]:
        status = [Path(f"/proc/{node.pid}/status").read_text() for node in nodes]
        return [int(text.partition("VmHWM:")[2].split()[0]) for text in status]

    before = peaks()
    yield
    assert all(after - peak < 64 * 1024 for after, peak in zip(peaks(), before, strict=True))


def is_same(url: str, path: Path) -> bool:
    """Whether curl gets, byte by byte, what is in a file."""
    command = ["curl", "-sS", "--fail", "--noproxy", "*", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as download:
        same = subprocess.run(["cmp", "-", path], stdin=download.stdout, timeout=2 * PATIENCE, check=False)
    return download.returncode == 0 and same.returncode == 0


def test_a_gigabyte_is_given_byte_by_byte_in_constant_memory(files: Files) -> None:
    sparse(files.directory / "large", 1024 * MIB + 5)
    with bounded_memory(*files.nodes):
        assert is_same(f"{files.url}//large", files.directory / "large")
    (files.directory / "large").unlink()


def test_a_large_file_is_taken_byte_by_byte_in_constant_memory(files: Files, tmp_path: Path) -> None:
    sparse(tmp_path / "large", 200 * MIB + 5)
    with bounded_memory(*files.nodes):
        assert curl(f"{files.url}//up/large", "-T", str(tmp_path / "large")).status == 201
    assert subprocess.run(["cmp", tmp_path / "large", files.directory / "up" / "large"], check=False).returncode == 0
    (files.directory / "up" / "large").unlink()


def test_a_download_that_was_killed_is_resumed_where_it_broke(files: Files, tmp_path: Path) -> None:
    sparse(files.directory / "film", 80 * MIB)
    part = tmp_path / "film"
    command = ["curl", "-sS", "--noproxy", "*", f"{files.url}//film"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as download:
        assert download.stdout is not None
        part.write_bytes(download.stdout.read(30 * MIB + 12345))
        assert download.poll() is None, "it is in the middle"
        download.kill()
    resumed = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-C", "-", "-o", part, "-w", "%{http_code} %{size_download}", command[-1]],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert resumed.stdout == f"206 {50 * MIB - 12345}"
    assert subprocess.run(["cmp", part, files.directory / "film"], check=False).returncode == 0


@pytest.mark.parametrize(
    "path",
    ["//../ca.key.pem", "//%2e%2e/ca.key.pem", "//..%2fca.key.pem", "//sub/..%2f..%2fca.key.pem", "//%2fetc%2fpasswd",
     "///etc/passwd", "//..", "//sub/../../ca.key.pem", "//./../ca.key.pem", "//..%00/ca.key.pem", "//x%00",
     "//..%c0%afca.key.pem", "//out", "//above/ca.key.pem", "//.%2e/ca.key.pem", "//%252e%252e/ca.key.pem"],
)  # fmt: skip
@pytest.mark.parametrize("options", [(), ("-X", "PUT", "-d", "evil"), ("-X", "DELETE")], ids=["GET", "PUT", "DELETE"])
def test_no_path_leads_out_of_the_directory(files: Files, path: str, options: tuple[str, ...]) -> None:
    outside = {each: each.read_bytes() for each in files.directory.parent.iterdir() if each.is_file()}
    for name, target in (("out", "../ca.key.pem"), ("above", "..")):
        (files.directory / name).unlink(missing_ok=True)
        (files.directory / name).symlink_to(target)
    answer = curl(files.url + path, "--path-as-is", *options)
    if options[1:] == ("DELETE",) and path == "//out":  # the link itself may go
        assert answer.status == 204
    elif options[1:2] == ("PUT",) and "%252e" in path:  # a name as good as another
        assert answer.status == 201
        assert (files.directory / "%2e%2e" / "ca.key.pem").read_bytes() == b"evil"
        (files.directory / "%2e%2e" / "ca.key.pem").unlink()
    else:
        assert answer.status in (400, 403, 404)
        assert answer.code in (248, 252)
    for each, content in outside.items():
        assert each.read_bytes() == content
    (files.directory / "out").unlink(missing_ok=True)
    (files.directory / "above").unlink()


def test_a_missing_file_is_told_from_a_missing_noun(files: Files) -> None:
    missing = curl(f"{files.url}//none")
    assert missing.outcome == (404, 248, "yes")
    assert missing.json["exception"]["class"] == "FileNotFoundError"
    assert curl(f"{files.url}s//none").outcome == (404, 255, "no")


def test_head_tells_the_length_and_a_copy_that_is_current_is_not_sent(files: Files, tmp_path: Path) -> None:
    (files.directory / "small").write_bytes(b"content")
    head = curl(f"{files.url}//small", "--head")
    assert (head.status, head.headers["content-length"], head.body) == (200, "7", b"")
    etag = head.headers["etag"]
    assert curl(f"{files.url}//small", "-H", f"If-None-Match: {etag}").status == 304
    assert curl(f"{files.url}//small", "-H", f"If-Modified-Since: {head.headers['last-modified']}").status == 304
    assert curl(f"{files.url}//small", "-r", "7-").headers["content-range"] == "bytes */7"


def test_a_server_serves_its_files_to_its_clients_and_unless_told_so_to_be_read_only(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        (site.directory / "a.txt").write_text("of the server")
        server = site.server(RP_FILES=str(site.directory))
        client = site.client(server.pipe_port)
        assert f"files     {site.directory} at files//PATH, read only" in server.output
        assert curl(f"{client.web}/server/files//a.txt").text == "of the server"
        refused = curl(f"{client.web}/server/files//a.txt", "-X", "PUT", "-d", "x")
        assert refused.outcome == (405, 255, "no")
        assert refused.headers["allow"] == "GET, HEAD"


def test_what_an_upload_to_a_node_that_is_killed_leaves_behind_is_gone_when_it_was_started_again(
    tmp_path: Path,
) -> None:
    with Site(tmp_path) as site:
        directory = site.directory / "served"
        (directory / "sub").mkdir(parents=True)
        server = site.server()
        client = site.client(server.pipe_port, RP_FILES=str(directory), RP_FILES_WRITABLE="1")
        with Curl(f"{server.web}/client/client/files//sub/a.txt", "-X", "PUT", uploads=True) as upload:
            upload.write(b"half of it")
            while not list(directory.glob("sub/.restpipe-upload-*")):
                upload.write(b".")
            client.kill()
        assert list(directory.glob("sub/.restpipe-upload-*"))
        client = site.client(server.pipe_port, RP_FILES=str(directory), RP_FILES_WRITABLE="1")
        client.wait_for("removed 1 uploads below .*/served that were never completed")
        assert [path.name for path in directory.rglob("*")] == ["sub"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--files", "none"], r"--files='none': should be a directory that exists: make it with `mkdir -p \S+/none`"),
        (["--files", "a file"], r"--files='a file': should be a directory$"),
        (["--files-writable"], r"--files-writable=True: should be 0 unless RP_FILES names a directory"),
        (
            ["--files", ".", "--handler", "serving.Files"],
            r"serving\.Files and \S+ both serve the noun 'files'",
        ),
    ],
)
def test_a_node_that_cannot_serve_files_does_not_start_and_says_why(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    with Site(tmp_path) as site:
        (site.directory / "a file").touch()
        (site.directory / "serving.py").write_text(
            "class Files:\n    def get_files(self, ctx, post_data):\n        return []\n"
        )
        identity = site.identity("client", "client")
        for command, code in ((["restpipe", "client"], 2), (["restpipe", "check", "client"], 1)):
            process = site.run(*command, *arguments, **identity)
            process.wait_for(said)
            process.wait(code)


def test_check_shows_the_directory_that_would_be_served(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        check = site.run("restpipe", "check", "client", "--files", ".", **site.identity("client", "client"))
        assert f"files        {site.directory} at files//PATH, read only" in check.wait()
