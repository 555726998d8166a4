#!/usr/bin/env python3
"""Looks at byway's page in a headless Chromium, through chromedriver.

    page.py URL SCREENSHOTS

W3C WebDriver is JSON over HTTP: the standard library suffices, and no client library has to be installed or pinned.
"""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB = "\ue004"
PATIENCE = 30


class Driver:
    """One session of chromedriver, on a port of its own choosing."""

    def __init__(self, log):
        # Chromium sandboxes itself by namespaces, which root and containers don't let it; the page is our own.
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--disable-background-networking", "--no-proxy-server", "--force-prefers-reduced-motion"]
        self.process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        self.base = None
        try:
            for line in self.process.stdout:
                if "started successfully on port" in line:
                    self.base = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}"
                    break
            if self.base is None:
                raise SystemExit("page: chromedriver doesn't start")
            answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "acceptInsecureCerts": True,
                "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}}})
            self.base += f"/session/{answer['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def call(self, method, path, body=None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"page: {path}: {json.load(error)['value']['message']}") from error

    def script(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def type(self, element, text):
        found = self.call("POST", "/element", {"using": "css selector", "value": element})[ELEMENT]
        self.call("POST", f"/element/{found}/value", {"text": text})

    def key(self, key):
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def wait(self, what, script, *arguments):
        """Until `script` gives something true."""
        until = time.monotonic() + PATIENCE
        while not (value := self.script(script, *arguments)):
            if time.monotonic() > until:
                raise SystemExit(f"page: never: {what}; the log: {self.script('return log_text()')}")
            time.sleep(0.05)
        return value

    def errors(self):
        return [entry for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] != "INFO"]

    def quit(self):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()


def check(good, what):
    if not good:
        raise SystemExit(f"page: {what}")
    print(f"page: {what}")


HELPERS = """
window.log_text = () => document.getElementById("log").innerText;
window.count = state => Number(document.querySelector(`[data-state="${state}"] .n`).textContent);
window.line = (name, place) => document.querySelectorAll(`#c-${name} polyline`)[place].getAttribute("points") ?? "";
"""


def look(driver, url):
    driver.call("POST", "/url", {"url": url})
    driver.script(HELPERS)
    driver.wait("the feed", 'return document.getElementById("feed").textContent === "the feed is live"')
    driver.wait("a connection in ESTABLISHED", 'return count("ESTAB") >= 1 && count("LISTEN") >= 1')
    check(True, "the feed is live, and the diagram counts its connection")


def keyboard(driver):
    """Everything that can be used is reached by the tabulator, and shows it."""
    wanted = driver.script("""return [...document.querySelectorAll("a,button,input,select,summary,[tabindex]")]
        .filter(one => !one.disabled).length""")
    driver.script("document.activeElement.blur(); scrollTo(0, 0)")
    seen = []
    for _ in range(wanted):
        driver.key(TAB)
        seen.append(driver.script("""const one = document.activeElement, style = getComputedStyle(one);
            return [one.id || one.textContent, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2]"""))
    names = [name for name, _ in seen]
    check(len(set(names)) == wanted and all(visible for _, visible in seen),
          f"{wanted} places reached by keyboard, each with a visible focus")


def console(driver):
    before = driver.script('return count("ESTAB")')
    driver.type("#protocols", "superchat\n")
    driver.wait("connected", 'return document.getElementById("state").textContent === "connected"')
    check("sub-protocol superchat" in driver.script("return log_text()"), "the console connects, with a sub-protocol")
    driver.wait("another connection in ESTABLISHED", 'return count("ESTAB") > arguments[0]', before)
    check(True, "the diagram counts the console's connection, too")
    driver.wait("the arrow's light", """return [...document.querySelectorAll("path.lit")]
        .some(path => path.dataset.move === "SYN-RECV>ESTAB") || Number([...document.querySelectorAll("#moves tr")]
        .find(row => row.innerText.startsWith("SYN-RECEIVED"))?.lastChild.textContent) >= 2""")
    driver.type("#text", "grüß dich, 世界\n")
    driver.wait("the echo", "return /← grüß dich, 世界 \\([\\d.]+ ms\\)/.test(log_text())")
    check(True, "text comes back, with its time")
    driver.script('document.getElementById("kind").value = "hex"')
    driver.type("#text", "00 ff7f80\n")
    driver.wait("the binary echo", "return /← binary 00 ff 7f 80 \\(/.test(log_text())")
    check(True, "binary comes back")
    driver.type("#text", "0g\n")
    driver.wait("a refusal", "return log_text().includes('not sent')")
    driver.script('document.getElementById("code").value = "3999"')
    driver.type("#reason", "enough\n")
    driver.wait("the close code", "return log_text().includes('closed, code 3999')")
    check(True, "a close code comes back, and what isn't hexadecimal isn't sent")


def open_console(driver, path):
    driver.script("""const url = document.getElementById("url");
        url.value = location.origin.replace(/^http/, "ws") + arguments[0];
        document.getElementById("protocols").value = "";
        document.getElementById("connect").requestSubmit()""", path)
    driver.wait("connected", 'return document.getElementById("state").textContent === "connected"')


def close_console(driver):
    driver.script("""document.getElementById("code").value = "1000";
        document.getElementById("close").requestSubmit()""")
    driver.wait("closed", 'return document.getElementById("state").textContent === "not connected"')


def pushes(driver):
    open_console(driver, "/ticker")
    driver.wait("two ticks", 'return log_text().includes(\'{"tick":2\')')
    close_console(driver)
    check(True, "the ticker ticks")


def charts(driver):
    for name in ("answers", "frames", "trips"):
        before = driver.wait(f"a line in {name}", "return line(arguments[0], 0)", name)
        driver.wait(f"{name} to move", "return line(arguments[0], 0) !== arguments[1]", name, before)
    check(True, "answers, frames and round trips are drawn, and move")
    for which, path in (("feed", None), ("console", "/feed")):
        if path:
            open_console(driver, path)
        driver.script("""const which = document.getElementById("which");
            which.value = arguments[0]; which.dispatchEvent(new Event("change"))""", which)
        driver.wait("a congestion window", "return line('window', 0)")
        windows = "return Number(document.querySelector('#l-window b').textContent.replace(/[^\\d.]/g, ''))"
        before = driver.script(windows)
        driver.wait("the button", 'return !document.getElementById("burst").disabled')
        driver.script('document.getElementById("burst").click()')
        driver.wait("4 MiB there and back", 'return !document.getElementById("burst").disabled')
        driver.wait("a grown window", windows + " > arguments[0]", before)
        check(True, f"the congestion window of the {which}'s connection is drawn, and grows by 4 MiB")
    close_console(driver)
    trips = driver.script("return document.getElementById('v-trips').textContent")
    check(trips.endswith(" ms"), f"the page's median round trip is {trips}")


def forbidden(driver):
    """The policy holds: a connection to elsewhere isn't made. Chromium says so in the console, which is no error."""
    driver.script("""window.violations = [];
        addEventListener("securitypolicyviolation", event => violations.push(event.effectiveDirective));
        try { new WebSocket("ws://192.0.2.99/"); } catch {}
        document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));""")
    driver.wait("two violations", "return violations.length >= 2")
    check(driver.script("return window.ran === undefined"), "neither connections elsewhere nor added scripts are let through")
    driver.errors()


def screenshots(driver, folder):
    for scheme in ("light", "dark"):
        driver.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for name, width, height in (("desktop", 1280, 800), ("phone", 360, 740)):
            driver.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height,
                       deviceScaleFactor=1 if width > 400 else 2, mobile=width < 400)
            driver.script("scrollTo(0, 0); dispatchEvent(new Event('resize'))")
            fits = driver.script("return document.documentElement.scrollWidth <= innerWidth")
            check(fits, f"{scheme}, {name}: nothing sticks out of {width} pixels")
            shot = driver.cdp("Page.captureScreenshot", captureBeyondViewport=True)
            (folder / f"{scheme}-{name}.png").write_bytes(base64.b64decode(shot["data"]))
    print(f"page: screenshots in {folder}")


def main():
    url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "chromedriver.log", "w", encoding="utf-8") as log:
        driver = Driver(log)
        try:
            look(driver, url)
            keyboard(driver)
            console(driver)
            pushes(driver)
            charts(driver)
            errors = driver.errors()
            check(not errors, f"no errors in the browser's console {errors or ''}")
            screenshots(driver, folder)
            forbidden(driver)
        finally:
            driver.quit()


if __name__ == "__main__":
    os.environ["NO_PROXY"] = "*"
    # Cut short, the browser is closed all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
