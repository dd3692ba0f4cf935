"""Ctrl-C ends a command without a traceback, however early it comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# As from a terminal: whoever runs the tests may ignore Ctrl-C.
RUN = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); runpy."
INTERRUPT = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
SCRIPTS = sorted(path for path in Path(sys.executable).parent.iterdir() if path.name.startswith(("restpipe", "rp_")))
COMMANDS = {path.name: f"{RUN}run_path('{path}', run_name='__main__')" for path in SCRIPTS}
COMMANDS["python -m restpipe"] = f"{RUN}run_module('restpipe', run_name='__main__')"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_ctrl_c_while_modules_are_imported_ends_a_command_without_a_word(command: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPT)  # which is imported in place of the library
    done = subprocess.run(
        [sys.executable, "-c", command, "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_every_command_is_tried() -> None:
    assert len(COMMANDS) == 8
