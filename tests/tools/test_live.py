"""The live page in a real browser: what it shows is what it was told."""

import base64
import json
import socket
import sys
import urllib.request
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from triax_tools.live import LivePage

sys.path.insert(0, str(Path(__file__).parent))
from browser import browser

DEVICES = [f"02{n:014x}" for n in range(40)]
PIXEL = (
    "const c = arguments[0], p = c.getContext('2d').getImageData(arguments[1], arguments[2], 1, 1).data; return [p[0], p[1], p[2]]"
)


@pytest.fixture
def page():
    """A page over a dict that the test changes, and the devices it was told to watch."""
    told = {
        "phase": "run",
        "elapsed_s": 3.0,
        "verdict": None,
        "hops": [
            {"name": "emitted", "frames": 1200, "rate": 400.0, "lag_ms": 0.0},
            {"name": "postgres", "frames": 900, "rate": 300.0, "lag_ms": 1500.0},
        ],
        "ages": base64.b64encode(bytes([3] * 39 + [255])).decode(),
        "wave": {"device": DEVICES[5], "hz": 100.0, "x": [0.0, 1.0] * 50, "y": [0.5] * 100, "z": [1.0] * 100},
    }
    watched = []
    with LivePage(lambda first: told | ({"devices": DEVICES} if first else {}), watched.append) as live:
        yield live, told, watched


@pytest.mark.timeout(60)
def test_the_page_shows_what_it_is_told(page, tmp_path):
    live, told, watched = page
    with browser(tmp_path) as driver:
        driver.get(live.url)
        wait = WebDriverWait(driver, 10)

        def shows(css, words):
            wait.until(lambda d: all(word in d.find_element(By.CSS_SELECTOR, css).text for word in words))

        shows("#hop-emitted", ["1,200", "400/s"])
        shows("#hop-postgres", ["900", "1.5 s behind"])
        shows("#fleet-title", ["39 of 40 devices"])
        shows("#wave-title", [DEVICES[5]])
        shows("#verdict", ["running"])
        fleet = driver.find_element(By.ID, "fleet")
        assert driver.execute_script(PIXEL, fleet, 4, 4) == [0x1A, 0x98, 0x50]

        told["ages"] = base64.b64encode(bytes([250] * 40)).decode()
        told["verdict"] = "FAIL"
        shows("#verdict", ["FAIL"])
        wait.until(lambda d: d.execute_script(PIXEL, fleet, 4, 4) == [0xD7, 0x30, 0x27])

        box = fleet.size
        ActionChains(driver).move_to_element_with_offset(fleet, 4 - box["width"] // 2, 4 - box["height"] // 2).click().perform()
        wait.until(lambda d: watched == [DEVICES[0]])
        errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]
        assert not errors


def test_a_second_browser_gets_the_devices_too(page):
    live, _, _ = page
    for _ in range(2):
        with urllib.request.urlopen(live.url + "events", timeout=5) as stream:
            first = json.loads(stream.readline().removeprefix(b"data: "))
            assert stream.readline() == b"\n"
            second = json.loads(stream.readline().removeprefix(b"data: "))
        assert first["devices"] == DEVICES
        assert "devices" not in second


def test_a_taken_port_is_named_with_the_option_that_helps():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}; choose another with --port"), LivePage(lambda _: {}, print, port):
            raise AssertionError("entered on a taken port")
