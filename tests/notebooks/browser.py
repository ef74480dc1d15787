"""Headless Chromium for the tests of pages, and a small picture."""

import json
import os
import shutil
import struct
import tempfile
import time
import zlib
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service


def png(width: int = 4, height: int = 3, pixels: bytes | None = None) -> bytes:
    """A small PNG, by hand: of one colour, or of gray `pixels`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if pixels is None:
        rows, kind = [b"\x20\x60\xa0" * width] * height, 2
    else:
        rows, kind = [pixels[y * width : (y + 1) * width] for y in range(height)], 0
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class Browser:
    """Headless Chromium with an empty profile, which reports every request that a page makes."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="mem2gen-chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--disable-default-apps", "--no-default-browser-check", "--metrics-recording-only",
            # Only this machine has a name here, so a request to another host fails and is reported below.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={self.profile.name}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        os.environ["SE_OFFLINE"] = "true"
        os.environ["SE_AVOID_STATS"] = "true"
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(60)
        # Leave the browser's own first page, so that it loads nothing more beside ours.
        self.driver.get("about:blank")

    def close(self):
        self.driver.quit()
        self.profile.cleanup()

    def requests(self) -> list[str]:
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            # The browser's own first page (`chrome:`, `chrome-untrusted:`) may still be loading when ours is opened.
            if not urlsplit(message["params"]["documentURL"]).scheme.startswith("chrome"):
                urls.append(message["params"]["request"]["url"])
        return urls

    def open(self, url: str, maths: bool = True) -> None:
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(url)
        if not maths:
            return
        end = time.monotonic() + 20
        while self.driver.execute_script("return document.documentElement.dataset.maths") != "done":
            if time.monotonic() > end:
                raise AssertionError(f"{url}: the formulas were never looked at")
            time.sleep(0.05)

    def faults(self, url: str, maths: bool = True) -> list[str]:
        """The faults of one page; `maths` says whether it has the script that renders formulas."""
        self.open(url, maths)
        run = self.driver.execute_script
        found = []
        for source in run(
            "return Promise.all([...document.images].map(i => i.decode().catch(() => 0)))"
            ".then(() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src))"
        ):
            found.append(f"image does not load: {source[:100]}")
        if run("return document.querySelectorAll('.katex-error').length"):
            found.append("a formula has an error: " + run("return document.querySelector('.katex-error').title"))
        # KaTeX paints commands that it doesn't know in this colour instead of failing.
        if run("return document.querySelectorAll('.katex [style*=\"#cc0000\"], .katex [style*=\"204, 0, 0\"]').length"):
            found.append("a formula has an unknown command")
        raw = run(
            "const t = []; for (const e of document.querySelectorAll("
            "'.jp-RenderedMarkdown, .text_cell_render, .prose, .docblock')) {"
            " const c = e.cloneNode(true); c.querySelectorAll('.katex, code, pre').forEach(x => x.remove());"
            " if (/\\$\\$|\\$[^$\\n]+\\$/.test(c.textContent)) t.push(c.textContent.trim()); } return t"
        )
        found += [f"a formula is not rendered: {text[:120]}" for text in raw]
        for asked in self.requests():
            parts = urlsplit(asked)
            if parts.scheme not in ("file", "data", "blob", "about") and parts.hostname != "127.0.0.1":
                found.append(f"asks another host: {asked[:100]}")
        for entry in self.driver.get_log("browser"):
            if entry["level"] == "SEVERE":
                found.append(f"the browser complains: {entry['message'][:200]}")
        return found
