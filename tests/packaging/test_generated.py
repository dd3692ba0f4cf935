"""gen/ is what protos/ says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "mypy", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=protos", *outputs, "restpipe_pb/v1/pipe.proto"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True, capture_output=True, timeout=60)

    generated = {file.name: file.read_text() for file in (tmp_path / "restpipe_pb" / "v1").iterdir()}
    committed = {file.name: file.read_text() for file in (ROOT / "gen" / "restpipe_pb" / "v1").glob("pipe_pb2*.py*")}
    assert committed == generated, "run `make proto`"
