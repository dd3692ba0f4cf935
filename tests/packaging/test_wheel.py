"""What is shipped: the wheel works alone, in a virtual environment that has nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", directory, ROOT, cwd=directory)
    (built,) = directory.glob("restpipe-*.whl")
    return built


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"restpipe", "restpipe_pb"}
    assert {"restpipe_pb/py.typed", "restpipe/py.typed", "restpipe_pb/v1/pipe_pb2.pyi"} <= set(names)
    # What the status page is made of.
    assert {f"restpipe/web/pages/status.{kind}" for kind in ("html", "css", "js")} <= set(names)


@pytest.mark.timeout(600)
def test_the_wheel_installs_alone_and_its_commands_run(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)

    assert run(bin_ / "restpipe", "--version", cwd=tmp_path).startswith("restpipe ")
    run(bin_ / "restpipe", "install-service", "server", "--root", tmp_path / "root", cwd=tmp_path)
    run(bin_ / "restpipe", "ca", "init", "--dir", tmp_path / "ca", cwd=tmp_path)
    run(bin_ / "python", "-c", "import restpipe, restpipe_pb.v1.pipe_pb2_grpc", cwd=tmp_path)
    for intruder in ("gen", "tests"):
        found = f"import importlib.util as u; assert u.find_spec({intruder!r}) is None"
        run(bin_ / "python", "-c", found, cwd=tmp_path)
