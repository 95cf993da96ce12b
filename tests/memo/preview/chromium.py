"""A page in headless Chromium, driven over its DevTools pipe: no port, no other package."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-pipe",
)  # fmt: skip
PIPES = 'exec "$@" 3<&0 4>&1 >/dev/null'
"""For `sh`: Chromium reads commands from 3 and writes answers to 4."""

LONGEST_S = 300
"""A browser that does not answer is ended, which fails the test."""


def find_chromium() -> str | None:
    """The command, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab.

    Args:
        to: what Chromium reads from.
        back: what it writes to.

    Attributes:
        events: what it told without being asked: method and parameters.
    """

    def __init__(self, to: IO[bytes], back: IO[bytes]) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._to, self._back = to, back
        self._left = b""
        self._asked = 0
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._asked += 1
        command = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._to.write(json.dumps(command).encode() + b"\0")
        while (told := self._read()).get("id") != self._asked:
            self.events.append((told["method"], told["params"]))
        assert "error" not in told, told
        answer: dict[str, Any] = told["result"]
        return answer

    def open(self, page: Path) -> None:
        """Load a page and wait until it is there."""
        self.events.clear()
        loader = self.ask("Page.navigate", url=page.as_uri())["loaderId"]
        while not self._is_there(loader):
            told = self._read()
            self.events.append((told["method"], told["params"]))

    def _is_there(self, loader: str) -> bool:
        """Whether this load is over; what was told before it began is of the page before."""
        begun = False
        for method, told in self.events:
            begun |= method == "Page.frameNavigated" and told["frame"]["loaderId"] == loader
            if begun and method == "Page.loadEventFired":
                return True
        return False

    def value(self, script: str) -> Any:  # noqa: ANN401
        """What an expression of JavaScript gives."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def show(self, width: int, height: int, scheme: str) -> None:
        """Change the window's size and the colours that its user prefers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def _read(self) -> dict[str, Any]:
        """The next answer or event."""
        while b"\0" not in self._left:
            part = self._back.read(1 << 16)
            assert part, "chromium has ended, or hung"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told


@contextmanager
def browser(command: str, profile: Path) -> Iterator[Browser]:
    """Chromium, until the context ends.

    Args:
        command: that starts it.
        profile: folder for what it keeps.
    """
    arguments = [command, *FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(
        ["sh", "-c", PIPES, "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hangs = threading.Timer(LONGEST_S, process.kill)
        hangs.start()
        try:
            yield Browser(process.stdin, process.stdout)
        finally:
            hangs.cancel()
            process.kill()
