"""A real browser without a screen: Debian's Chromium, driven over WebDriver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debian_packages import Tree, unpacked
from selenium.webdriver import ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

PACKAGES = ("chromium", "chromium-driver", "fonts-dejavu-core")

# Tall, because a list shows only the rows that have room.
_WINDOW = "--window-size=1280,2000"
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    _WINDOW,
)

# What a browser would do of its own accord: this one is to talk to the test's pages and to nobody else.
_RESOLVES = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_QUIET = (
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-domain-reliability", "--no-pings", _RESOLVES,
)  # fmt: skip

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


@contextmanager
def browser(folder: Path) -> Iterator[WebDriver]:
    """A browser with its profile in ``folder``. Raises NotToBeHad where it cannot be had."""
    tree = unpacked(*PACKAGES)
    options = ChromeOptions()
    options.binary_location = str(tree.program("chromium"))
    for argument in (*_ARGUMENTS, *_QUIET, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    service = Service(executable_path=str(tree.program("chromedriver")), env=_environ(tree, folder))
    driver = WebDriver(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def _environ(tree: Tree, folder: Path) -> dict[str, str]:
    fonts = folder / "fonts.conf"
    fonts.write_text(_FONTS.format(root=tree.root, cache=folder / "fonts"))
    return {**tree.environ, "FONTCONFIG_FILE": str(fonts), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
