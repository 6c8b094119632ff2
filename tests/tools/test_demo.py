"""`triax demo` as a person runs it: from nothing to a verdict."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from triax_tools.demo import way_of

sys.path.insert(0, str(Path(__file__).parent))
from browser import browser

pytestmark = pytest.mark.servers
TRIAX = [sys.executable, "-m", "triax_tools"]


@contextlib.contextmanager
def started(home, *arguments):
    """`triax` with its own home, ended with the block."""
    environ = {**os.environ, "TRIAX_HOME": str(home)}
    process = subprocess.Popen([*TRIAX, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()
        process.stderr.close()


def no_loss(report):
    """What must hold on any machine; a busy one may make the generator late, and the verdict INVALID for that alone."""
    hops = report["hops"]
    assert list(hops) == ["emitted", "mqtt", "kafka", "postgres", "lake", "redis"]
    for name in ("mqtt", "kafka", "postgres", "lake"):
        assert (hops[name]["frames"], hops[name]["missing"], hops[name]["repeated"]) == (hops["emitted"]["frames"], 0, 0), name
    assert hops["redis"]["behind"] == 0
    assert report["self_test"]["exact"]
    assert report["verdict"] != "FAIL" or all("latency" in reason for reason in report["reasons"])


def test_without_mosquitto_the_devices_connect_to_the_ingest_front(monkeypatch, capsys):
    monkeypatch.setattr("triax_tools.demo.installed", lambda: None)
    assert way_of({"mqtt": "mqtt://127.0.0.1:1883"}) == "bridge"
    assert way_of({}) == "ingest"
    assert "mosquitto is not installed" in capsys.readouterr().err


@pytest.mark.timeout(180)
def test_from_nothing_to_a_verdict_with_a_browser_looking(tmp_path):
    with started(tmp_path / "home", "demo", "--devices", "60", "--gold", "2", "--seconds", "10") as demo:
        line = demo.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        with browser(tmp_path / "profile") as driver:
            driver.get(url)
            wait = WebDriverWait(driver, 120)
            wait.until(lambda d: "running" in d.find_element(By.ID, "phase").text)
            wait.until(lambda d: heard(d) >= 50)
            wait.until(lambda d: d.find_elements(By.ID, "hop-postgres") and frames(d, "postgres") > 100)
            wait.until(lambda d: d.find_element(By.ID, "verdict").text in ("PASS", "FAIL", "INVALID"))
            shown = driver.find_element(By.ID, "verdict").text
        printed, _ = demo.communicate(timeout=60)
    assert shown in printed
    report = json.loads((tmp_path / "home/demo/report.json").read_text())
    assert report["verdict"] == shown
    assert demo.returncode == {"PASS": 0, "FAIL": 1, "INVALID": 2}[shown]
    no_loss(report)
    assert [path.name for path in (tmp_path / "home/demo/stack").iterdir()] == ["logs"]  # the servers' data do not stay


def heard(driver):
    """Devices that the page says it heard of within 2 s."""
    said = re.search(r"([\d,]+) of [\d,]+ devices", driver.find_element(By.ID, "fleet-title").text)
    return int(said[1].replace(",", "")) if said else 0


def frames(driver, hop):
    return int(driver.find_element(By.CSS_SELECTOR, f"#hop-{hop} b").text.replace(",", "") or 0)
