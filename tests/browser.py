"""A real chromium without a window, for pages on disk: what it loads, logs, shows and prints."""

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["Page", "missing", "opened"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """Return why no browser can be started; "" if one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: it is in gradlab[dev]"
    if not any(map(shutil.which, CHROMIUM)):
        return "chromium is not installed (Debian: apt-get install chromium)"
    if not shutil.which("chromedriver"):
        return "chromedriver is not installed (Debian: apt-get install chromium-driver)"
    return ""


class Page:
    """The one page of a browser, opened again for each file."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1400, height: int = 900) -> "Page":
        """Load a file in a window of this size; wait until its pictures are drawn."""
        self.resize(width, height)
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(path.resolve().as_uri())
        self.until(lambda: self.script("return document.readyState === 'complete'"))
        return self

    def drawn(self) -> "Page":
        """Wait until all pictures of a report are drawn by its script."""
        figures = "[...document.querySelectorAll('figure')]"
        self.until(lambda: self.script(f"return {figures}.every((f) => f.dataset.drawn)"))
        return self

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page this wide: a phone is narrower than any window of a desktop."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def script(self, text: str, *arguments: object) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        """Return the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """Return all elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements of a CSS selector."""
        shown = "[...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())"
        return list(self.script(f"return {shown}", selector))

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def hover(self, element: Any) -> None:
        """Move the mouse to the middle of an element."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def until(self, holds: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until something holds; return it."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > end:
                raise TimeoutError("the page does not come to what is waited for")
            time.sleep(0.02)
        return found

    def complaints(self) -> list[str]:
        """Return what the page logged since it was opened: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened, without its own."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if url.partition("#")[0] != self.driver.current_url]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        root = "document.scrollingElement"
        return int(self.script(f"return {root}.scrollWidth - {root}.clientWidth"))

    def printed(self) -> bytes:
        """Return the page as PDF, as it is printed."""
        return base64.b64decode(self.driver.print_page())

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the page, as PNG."""
        told = {"captureBeyondViewport": whole, "format": "png"}
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            told["clip"] = dict(size, x=0, y=0, scale=1)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", told)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def opened() -> Iterator[Page]:
    """Yield the page of a browser, which is ended with all of its processes."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, CHROMIUM)))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with TemporaryDirectory() as profile:
        for switch in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(switch)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Page(driver)
        finally:
            driver.quit()
