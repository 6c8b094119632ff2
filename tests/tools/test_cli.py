"""Every word of the command is where it is said to be, and help needs none of them."""

import subprocess
import sys

import pytest
import typer
from triax_tools.cli import COMMANDS, build
from typer.testing import CliRunner


@pytest.mark.parametrize("word", COMMANDS)
def test_every_word_has_help(word):
    result = CliRunner().invoke(build(word), [word, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_help_lists_every_word():
    result = CliRunner().invoke(build(None), ["--help"])
    for word, (_, _, text) in COMMANDS.items():
        assert word in result.output
        assert text.split()[0] in result.output
    assert isinstance(build(None), typer.Typer)


def test_help_imports_nothing_heavy():
    code = """
import sys
sys.argv = ["triax", "--help"]
from triax_tools.__main__ import main
try:
    main()
finally:
    print(sorted(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    for heavy in ("'numpy'", "'scipy'", "'matplotlib'", "'pyiceberg'", "'confluent_kafka'"):
        assert heavy not in shown


def test_an_unknown_word_is_wrong_usage():
    result = CliRunner().invoke(build("nosuch"), ["nosuch"])
    assert result.exit_code == 2
    assert "nosuch" in result.output


def test_missing_libraries_name_the_extra():
    code = "import sys; sys.modules['typer'] = None\nfrom triax_tools.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "pip install 'triax[tools]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["frames", "decode", "nofile.bin"], "No such file or directory: 'nofile.bin'"),
        (["frames", "tail", "--device", "xyz"], "xyz"),
        (["budget", "--part", "iis3dwb", "--board", "esp32", "--wiring", "nodir/x.svg"], "nodir/x.svg"),
        (["calibrate", "capture", "nodir/x.capture", "--simulate"], "nodir/x.capture"),
        (["config", "show", "0" * 15 + "1", "--mqtt", "mqtts://127.0.0.1:1?ca=/nofile"], "No such file"),
        (["read", "0" * 15 + "1", "--from", "inf"], "'inf' is no time"),
    ],
)
def test_ordinary_mistakes_are_a_sentence(tmp_path, arguments, what):
    done = subprocess.run(
        [sys.executable, "-m", "triax_tools", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode in (1, 2)
    assert what in " ".join(done.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in done.stderr
