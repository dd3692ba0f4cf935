"""A real Chromium, steered by the DevTools protocol: what a page shows and does once its scripts have run."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from e2e_processes import PATIENCE
from websockets.sync.client import ClientConnection, connect


def browser_command() -> str | None:
    """Return Chromium's command; None where it is not installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A headless Chromium, which ends with it.

    Args:
        command: of Chromium.
        directory: of its profile.
    """

    def __init__(self, command: str, directory: Path) -> None:
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    command, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--disable-background-networking", "--disable-component-update",
                    "--remote-debugging-port=0", f"--user-data-dir={directory / 'profile'}", "about:blank",
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    @contextmanager
    def open(self, url: str) -> "Iterator[Page]":
        """Open a page in a tab of its own."""
        with connect(self._address(), max_size=None, proxy=None) as connection:
            page = Page(connection)
            try:
                page.begin(url)
                yield page
            finally:
                page.close()

    def _address(self) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"DevTools listening on (\S+)", self._log.read_text(errors="replace"))
            if found:
                return found[1]
            time.sleep(0.05)  # it tells by its log alone
        raise AssertionError(f"Chromium did not start:\n{self._log.read_text(errors='replace')}")


class Page:
    """A page that is open.

    Attributes:
        complaints: errors of its scripts, and what its policy kept from being done.
        hosts: that it asked for anything.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._id = 0
        self._session = ""
        self._target = ""
        self.complaints: list[str] = []
        self.hosts: set[str] = set()

    def begin(self, url: str) -> None:
        """Go to the page."""
        self._target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Network", "Runtime", "Log", "Page"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=url)
        at = re.sub("//[^/]*@", "//", url)  # what it tells lacks user and password
        self.wait_for(f"location.href === {json.dumps(at)} && document.readyState === 'complete'")

    def close(self) -> None:
        """Close the tab."""
        self._session = ""
        self._call("Target.closeTarget", targetId=self._target)

    def prefer(self, scheme: str) -> None:
        """Have the user prefer "light" or "dark"."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int) -> None:
        """Have the window be as large as that, in CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, script: str) -> Any:
        """Return the value of a script, awaited where it is a promise."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a script's value is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"{condition} did not come true:\n{self.value('document.body.innerText')}")
            time.sleep(0.05)  # a page tells of no change

    def fill(self, field: str, text: str) -> None:
        """Replace the text of a field as if it were typed."""
        self.wait_for(field)
        self.value(f"{{const field = {field}; field.focus(); field.select()}}")
        self._call("Input.insertText", text=text)

    def attach(self, field: str, content: str) -> None:
        """Choose a file of this content."""
        self.wait_for(field)
        self.value(
            f"{{const field = {field}; const chosen = new DataTransfer();"
            f"chosen.items.add(new File([{json.dumps(content)}], 'file.txt')); field.files = chosen.files;"
            "field.dispatchEvent(new Event('change', {bubbles: true}))}"
        )

    def download(self, script: str, directory: Path) -> bytes:
        """Return the file that the browser downloads into an empty directory when a script runs."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(directory))
        self.value(script)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [path for path in directory.iterdir() if path.suffix != ".crdownload"]
            if found and found[0].stat().st_size:
                return found[0].read_bytes()
            time.sleep(0.05)  # a directory tells of no change
        raise AssertionError("nothing was downloaded")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            received = json.loads(self._connection.recv(PATIENCE))
            if received.get("id") == self._id:
                assert "error" not in received, received
                result: dict[str, Any] = received["result"]
                return result
            self._note(received.get("method", ""), received.get("params", {}))

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            url = urlsplit(told["request"]["url"])
            if url.scheme not in ("data", "blob", "about"):
                self.hosts.add(url.netloc.rpartition("@")[2])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])
