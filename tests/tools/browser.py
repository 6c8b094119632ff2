"""A real browser for the tests: Debian's Chromium, driven by its own driver."""

from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Without the background flags Chromium looks for its maker's hosts at every start.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,800",
]


@contextmanager
def browser(profile):
    """A headless Chromium with an empty profile in the folder `profile`."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()
