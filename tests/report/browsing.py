"""How the tests open a page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_page(browser: Any, folder: Path, width: int = 1200, scheme: str = "light") -> None:
    """Open the page of a folder, and wait for its figures."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((folder / "report.html").as_uri())
    wait(browser, "document.documentElement.dataset.ready === 'yes'")


def wait(browser: Any, condition: str) -> None:
    """Wait for a condition in JavaScript."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda b: b.execute_script(f"return {condition}"))
