"""Ctrl-C ends the command line without a traceback, however early it comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# As from a terminal: whoever runs the tests may ignore Ctrl-C.
COMMAND = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('restpipe', run_name='__main__')"
)
INTERRUPT = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


def test_ctrl_c_while_modules_are_imported_ends_a_command_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPT)  # which is imported in place of the library
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
