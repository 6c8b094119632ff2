"""npm packages of a lock file beside a test, installed once."""

import fcntl
import shutil
import subprocess

import pytest


def installed(folder):
    """`folder` itself, once the packages of its lock file are in its node_modules."""
    if shutil.which("npm") is None:
        pytest.fail("npm is not there: Debian's packages nodejs and npm")
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs in one tree
        # npm writes this file last.
        if not (folder / "node_modules" / ".package-lock.json").exists():
            command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
            assert done.returncode == 0, done.stderr
    return folder
