"""Chromium without a window, spoken to over a pipe in its DevTools protocol. Only the standard library is used."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


class Closed(Exception):
    pass


class Browser:
    """One browser with a profile of its own and no network to go to: every name resolves to nothing."""

    def __init__(self, program=None):
        program = program or os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if not program:
            raise Closed("there is no chromium: scripts/bootstrap.sh check installs it, CHROMIUM= names another")
        self.profile = tempfile.mkdtemp(prefix="dsacal-browser-")
        to_read, self._out = os.pipe()
        self._in, to_write = os.pipe()

        def wire():  # the browser reads descriptor 3 and writes descriptor 4
            high = [os.dup(to_read), os.dup(to_write)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--disable-extensions", "--disable-background-networking", "--disable-component-update",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", "--remote-debugging-pipe",
             f"--user-data-dir={self.profile}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self._rest, self._number, self.events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank", session=None)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        try:
            self.call("Browser.close", session=None)
            self.process.wait(10)
        except (Closed, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _message(self, seconds):
        until = time.time() + seconds
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0, until - time.time()))[0]:
                raise Closed(f"the browser says nothing for {seconds} s")
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise Closed("the browser went away")
            self._rest += piece
        text, self._rest = self._rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, session="", seconds=60, **parameters):
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            request["sessionId"] = session or self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data):]
        while True:
            message = self._message(seconds)
            if message.get("id") == self._number:
                if "error" in message:
                    raise Closed(f"{method}: {message['error']}")
                return message["result"]
            if "method" in message:
                self.events.append(message)

    def wait_for(self, method, seconds=30):
        until = time.time() + seconds
        while True:
            for event in self.events:
                if event["method"] == method:
                    return event
            self.events.append(self._message(max(0.1, until - time.time())))

    def open(self, path, width=1280, height=900, dark=False, scripts=True):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.media(dark=dark)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events = []
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        self.wait_for("Page.loadEventFired")

    def media(self, kind="", dark=False):
        self.call("Emulation.setEmulatedMedia", media=kind,
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def value(self, expression):
        """Of a JavaScript expression, as JSON has it; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Closed(f"{expression:.80}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name):
        codes = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                 "ArrowDown": 40, "PageUp": 33, "PageDown": 34}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=codes[name])

    def noise(self):
        """What the page said on its console, and what it asked the network for besides itself."""
        self.value("1")  # all that was said before has arrived with this answer
        said, asked = [], []
        for event in self.events:
            kind, what = event["method"], event.get("params", {})
            if kind in ("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown"):
                said.append(json.dumps(what)[:400])
            elif kind == "Network.requestWillBeSent":
                asked.append(what["request"]["url"])
        return said, asked

    def screenshot(self, path, width, height):
        """From the top of the page, as far as it goes."""
        height = min(height, self.value("document.documentElement.scrollHeight"))
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True,
                            clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])
