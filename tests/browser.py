"""A real browser, steered over WebDriver: what a person would do with a page."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
WAIT_S = 120


class Browser:
    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
            return json.load(reply)["value"]

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str, *given: Any) -> Any:
        """What a function body of JavaScript returns."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(given)})

    def wait_for(self, script: str) -> Any:
        """What the expression is as soon as it is true."""
        deadline = time.monotonic() + WAIT_S
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        """As a mouse does it: only what can be seen and reached."""
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        self.ask("POST", f"/element/{found[ELEMENT]}/click")

    def keys(self, text: str) -> None:
        """Into whatever has the focus."""
        presses = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})


@contextmanager
def browser(width: int, height: int) -> Iterator[Browser]:
    """Headless Chromium with a fresh profile; the test is skipped where there is none."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    with tempfile.TemporaryDirectory() as profile, (Path(profile) / "driver.log").open("w+") as log:
        process = subprocess.Popen([driver, "--port=0"], stdout=log, stderr=log)
        try:
            root = f"http://127.0.0.1:{_port_of(process, Path(log.name))}"
            flags = [f"--{flag}" for flag in FLAGS] + [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
            wanted = {"goog:chromeOptions": {"binary": chromium, "args": flags}}
            capabilities = {"capabilities": {"alwaysMatch": wanted}}
            session = Browser(root).ask("POST", "/session", capabilities)["sessionId"]
            found = Browser(f"{root}/session/{session}")
            yield found
            found.ask("DELETE", "")
        finally:
            process.kill()
            process.wait()


def _port_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """The one that the system gave it, which it tells when it is ready."""
    deadline = time.monotonic() + WAIT_S
    while (told := re.search(r"started successfully on port (\d+)", log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"chromedriver did not start: {log.read_text()}"
        time.sleep(0.05)
    return told[1]
