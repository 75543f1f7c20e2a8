"""The dashboard in a real browser (headless Chromium), on figures from a run in virtual time.

Screenshots go to the folder in TENANTDL_SCREENSHOTS, if it is set.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from tenantdl.daemon.observe.routes import pages, routes
from tests.daemon.observe.simulated import Watched

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (_BROWSER and _DRIVER), reason="no Chromium with chromedriver (apt: chromium-driver)"
)
TOKEN = "let-me-in"


class Guard:
    """Asks for a token while `wanted` is set, as a daemon with operators' tokens does."""

    def __init__(self, app: Starlette) -> None:
        self.app = app
        self.wanted = False
        self.polls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/status":
            self.polls += 1
            said = Request(scope).headers.get("authorization")
            if self.wanted and said != f"Bearer {TOKEN}":
                await Response(status_code=401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(Starlette(routes=[*routes(Watched()), *pages()]))


@pytest.fixture(scope="module")
def url(guard: Guard) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(guard, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield "http://{}:{}".format(*listener.getsockname())
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    webdriver: Any = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = _BROWSER
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


class Page:
    """One visit."""

    def __init__(self, chromium: Any, url: str, width: int = 1280, scheme: str = "light") -> None:
        self.driver = chromium
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.get("about:blank")
        chromium.get(url)

    def js(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression: str) -> None:
        """Wait until `expression` holds on the page."""
        self.driver.execute_async_script(
            f"const done = arguments[0];"
            f"(function look() {{ ({expression}) ? done() : setTimeout(look, 20); }})();"
        )

    def ready(self) -> Page:
        self.until("document.querySelectorAll('.tenant').length === 4")
        return self

    def complaints(self) -> list[str]:
        """What the browser said: errors of scripts, things that the policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self, name: str) -> None:
        folder = os.environ.get("TENANTDL_SCREENSHOTS")
        if folder:
            height = self.js("document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": self.js("innerWidth"), "height": height, "scale": 1}
            taken = self.driver.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
            )
            (Path(folder) / name).write_bytes(base64.b64decode(taken["data"]))


# Contrast of every text with what is behind it, as WCAG 2.1 defines it; the least and whose.
_CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parse(c).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, p = parse(c);
    if (p.length === 3 || p[3] > 0) return c; } return 'rgb(255,255,255)'; };
  let least = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('[hidden],noscript,.skip,option')) continue;
    const style = getComputedStyle(e);
    const ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, `${e.tagName} ${e.textContent}`.slice(0, 80)];
  }
  return least; })()"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_readable(chromium: Any, url: str, width: int, scheme: str) -> None:
    page = Page(chromium, url, width, scheme).ready()
    page.screenshot(f"dashboard-{scheme}-{width}.png")
    assert page.complaints() == []
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    ratio, where = page.js(_CONTRAST)
    assert ratio >= 4.5, where
    small = "[...document.querySelectorAll('body *')].filter((e) => e.children.length === 0"
    small += " && e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 11).length"
    assert page.js(small) == 0


@needs_browser
def test_shows_what_the_daemon_says(chromium: Any, url: str) -> None:
    page = Page(chromium, url).ready()
    titles = page.js("[...document.querySelectorAll('.tenant h3')].map((e) => e.textContent)")
    assert titles == ["search", "photos", "street-cameras", "night-batch"]
    shares = page.js("[...document.querySelectorAll('.attainment b')].map((e) => e.textContent)")
    assert all(share.endswith("%") for share in shares)
    # A deadline in every histogram, late answers only right of it.
    assert page.js("document.querySelectorAll('.deadline').length") == 4
    late = "[...document.querySelectorAll('figure:nth-of-type(1) svg')].every((svg) =>"
    late += " [...svg.querySelectorAll('.bar-late')].every((bar) => +bar.getAttribute('x') + 4 >"
    late += " +svg.querySelector('.deadline').getAttribute('x1')))"
    assert page.js(late) is True
    assert "16 cores" in page.js("document.getElementById('advice').textContent")
    assert page.js("document.getElementById('models').rows.length") == 4
    assert page.js("document.querySelectorAll('#lanes li').length") == 16


@needs_browser
def test_the_timeline_has_blocks_in_the_tenants_colours(chromium: Any, url: str) -> None:
    page = Page(chromium, url).ready()
    page.until("/^[1-9]\\d* blocks/.test(document.getElementById('timeline').ariaLabel)")
    drawn = """(() => { const c = document.getElementById('timeline');
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, found = new Set();
      for (let i = 0; i < d.length; i += 4) found.add(`rgb(${d[i]}, ${d[i+1]}, ${d[i+2]})`);
      return [...document.querySelectorAll('.legend .swatch')]
        .filter((s) => found.has(getComputedStyle(s).backgroundColor)).length; })()"""
    assert page.js(drawn) >= 3


@needs_browser
def test_usable_without_a_mouse_or_eyes(chromium: Any, url: str) -> None:
    page = Page(chromium, url).ready()
    unnamed = (
        "[...document.querySelectorAll('svg, canvas, button, select, input, a')].filter((e) =>"
    )
    unnamed += (
        " !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length"
    )
    assert page.js(unnamed) == 0
    assert page.js("document.documentElement.lang") == "en"
    assert page.js("document.querySelectorAll('h1').length") == 1
    canvas = page.driver.find_element("id", "timeline")
    canvas.send_keys("\ue014")  # arrow right
    page.until("!document.getElementById('tip').hidden")
    said = page.js("document.getElementById('tip').textContent")
    assert "request" in said and "predicted" in said
    canvas.send_keys("\ue00c")  # escape
    page.until("document.getElementById('tip').hidden")


@needs_browser
def test_pause_stops_asking(chromium: Any, url: str, guard: Guard) -> None:
    page = Page(chromium, url).ready()
    page.driver.find_element("id", "pause").click()
    page.until("document.getElementById('pause').textContent === 'Resume'")
    before = guard.polls
    page.driver.execute_async_script("setTimeout(arguments[0], 2500)")
    assert guard.polls <= before + 1  # one may have been under way
    page.driver.find_element("id", "pause").click()
    asked = guard.polls
    while guard.polls == asked:
        page.driver.execute_async_script("setTimeout(arguments[0], 50)")


@needs_browser
def test_a_daemon_with_tokens_asks_for_one(chromium: Any, url: str, guard: Guard) -> None:
    guard.wanted = True
    try:
        page = Page(chromium, url)
        page.until("!document.getElementById('login').hidden")
        assert page.js("document.querySelectorAll('.tenant').length") == 0
        page.driver.find_element("id", "token").send_keys(TOKEN + "\n")
        page.ready()
        assert page.js("document.getElementById('login').hidden")
    finally:
        guard.wanted = False
        page.driver.execute_script("sessionStorage.clear()")


def test_the_page_is_all_our_own(url: str) -> None:
    with urllib.request.urlopen(url + "/", timeout=30) as answer:
        assert answer.url == url + "/dashboard/"
        policy, body = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "://" not in body
    for file in ("dashboard.css", "dashboard.js", "icon.svg"):
        with urllib.request.urlopen(f"{url}/dashboard/{file}", timeout=30) as answer:
            assert answer.read()
    for bad in ("..%2Fengine.py", "engine.py", ".."):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/dashboard/x/{bad}", timeout=30)
        assert error.value.code == 404
