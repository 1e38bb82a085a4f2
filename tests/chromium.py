"""A headless Chromium to drive, over its DevTools protocol: Python's standard library and the
browser suffice.
"""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 120  # seconds for the browser to start, and for what a test waits for


def find():
    """The browser's path, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One page of a browser. Args: folder, for its profile; width, height of the window in
    pixels.
    """

    def __init__(self, folder, width=1280, height=640):
        flags = [
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--remote-debugging-port=0",
            "about:blank",
        ]
        flags += [
            f"--user-data-dir={folder}",
            f"--window-size={width},{height}",
            "--disable-background-networking",
        ]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox refuses to run as root
        self.process = subprocess.Popen([find(), *flags], stderr=subprocess.DEVNULL)
        self.number, self.events = 0, []
        port = until(lambda: _port(Path(folder) / "DevToolsActivePort"))
        page = until(lambda: _page(port))
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {page} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: "
            "Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.answers = self.socket.makefile("rb")
        while self.answers.readline().strip():
            pass

    def call(self, method, **parameters):
        """One command of the protocol; events that come meanwhile are kept in `events`."""
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        mask, n = os.urandom(4), len(text)
        head = bytes([128 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n)
        self.socket.sendall(
            b"\x81" + head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
        )
        while True:
            answer = json.loads(self._frame())
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _frame(self):
        message = b""
        while True:
            first, n = self.answers.read(2)
            if n >= 126:
                n = int.from_bytes(self.answers.read(2 if n == 126 else 8), "big")
            message += self.answers.read(n)
            if first & 128:  # the last frame of a message
                return message

    def js(self, code):
        """The value of an expression in the page, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, code):
        """Until the expression is true."""
        until(lambda: self.js(code))

    def open(self, url):
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def drag(self, *points):
        """Press the left button at the first point of the window, move over the others, release."""
        for i, (x, y) in enumerate(points):
            self._mouse("mouseMoved" if i else "mousePressed", x, y)
        self._mouse("mouseReleased", *points[-1])

    def _mouse(self, kind, x, y):
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1
        )

    def click(self, selector):
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        self.drag(self.js(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})"))

    def key(self, name):
        """Press and release a key, such as Enter, Tab or ArrowLeft."""
        text = {"text": "\r"} if name == "Enter" else {}
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}[name]
        for kind in ("keyDown", "keyUp"):
            about = {"key": name, "code": name, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type=kind, **about, **text)

    def look(self, width, height, theme="light"):
        """Take a window of that size, below 500 px wide a phone's, and the user's theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path, whole=False):
        """Write what the page looks like, as PNG. Args: whole, what is below the window too."""
        size = {}
        if whole:
            box = self.call("Page.getLayoutMetrics")["cssContentSize"]
            size = {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
        shot = self.call("Page.captureScreenshot", format="png", **size)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait()


def _port(file):
    return int(file.read_text().split()[0]) if file.exists() and file.stat().st_size else None


def _page(port):
    try:
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [
                tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"
            ]
    except OSError:
        return None
    return pages[0].split(str(port), 1)[1] if pages else None


def until(ask):
    """The first true answer of a function, asked again and again."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise TimeoutError(f"nothing within {PATIENCE} s")
