"""The node's inner loops on the unix port of MicroPython: viper against the same algorithm in bytecode, the frame encoder against
minipb on the same message. Prints rows of a Markdown table; ratios come from one run.

    python tests/bench/node_kernel.py
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ON_MICROPYTHON = Path(__file__).with_name("node_kernel_micropython.py")
REPEATS = 5


def on_micropython() -> dict[str, float]:
    """Medians over REPEATS runs, microseconds by name."""
    port = Path(sys.executable).parent / "micropython"
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [port, "-X", "heapsize=8m", ON_MICROPYTHON],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"MICROPYPATH": str(ROOT / "device")},
        )
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


# The message of both encoders, as minipb's schema: fixed32 I, fixed64 Q, sfixed32 i, sfixed64 q, packed #.
SCHEMA = "checksum I,device Q,boot I,sequence I,first_sample Q,samples I,time_us q,time_error_us I,rate_hz f,decimation I,scale_g f"
SCHEMA += ",x #i,y #i,z #i,minimum #i,maximum #i,sum_squares #Q,lost_samples I,flags I,config I,temperature_mc i"

# minipb imports two modules that MicroPython lacks; it uses no more of them than this.
SHIMS = {
    "logging": "def getLogger(name=None):\n    return None\n",
    "bisect": "def bisect_left(a, x):\n    i = 0\n    while i < len(a) and a[i] < x:\n        i += 1\n    return i\n",
}
WITH_MINIPB = """
import json, sys, time
import minipb
wire = minipb.Wire([tuple(field.split(" ")) for field in SCHEMA.split(",")])
message = {}
for field in SCHEMA.split(","):
    name, kind = field.split(" ")
    message[name] = 1.0 if kind == "f" else 1 if kind[0] != "#" else [1, 2, 3] if name[0] in "ms" else [70000] * 10
wire.encode(message)
times = []
for _ in range(REPEATS):
    start = time.perf_counter_ns() // 1000 if hasattr(time, "perf_counter_ns") else time.ticks_us()
    for _ in range(20):
        data = wire.encode(message)
    stop = time.perf_counter_ns() // 1000 if hasattr(time, "perf_counter_ns") else time.ticks_us()
    times.append((stop - start) / 20)
print(json.dumps([min(times), len(data)]))
"""


def minipb_us(interpreter: Path) -> float | None:
    """Microseconds of minipb for a frame of ten values; None where it does not run."""
    import minipb

    with tempfile.TemporaryDirectory() as folder:
        for name, text in SHIMS.items() if interpreter.name == "micropython" else ():
            Path(folder, name + ".py").write_text(text)
        shutil.copy(minipb.__file__, folder)
        script = Path(folder, "measure.py")
        script.write_text(f"SCHEMA = {SCHEMA!r}\nREPEATS = {REPEATS}\n" + WITH_MINIPB)
        done = subprocess.run(
            [interpreter, script], check=False, capture_output=True, text=True, env=os.environ | {"MICROPYPATH": folder}
        )
    if done.returncode:
        print(done.stdout[-300:] + done.stderr[-300:], file=sys.stderr)
        return None
    us, size = json.loads(done.stdout)
    assert size == 273, f"minipb makes {size} bytes of it"
    return float(us)


def ours_us() -> float:
    """Our encoder on CPython, microseconds for the same frame."""
    from triax.average import Average
    from triax.frame import FrameEncoder

    average = Average(160, 10, 16)
    average.state[3] = 10
    encoder = FrameEncoder(1, 2, 10)
    return _best(lambda: encoder.encode(average, 0, 0))


def _best(call) -> float:
    for _ in range(20):
        call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(200):
            call()
        times.append((time.perf_counter() - start) / 200 * 1e6)
    return min(times)


def rows() -> list[str]:
    """Rows of a Markdown table: what, ours, against, ratio."""
    us = on_micropython()
    python = Path(sys.executable)
    ours, theirs, there = ours_us(), minipb_us(python), minipb_us(python.parent / "micropython")
    table = [
        ("FIFO bytes to frame, 1,600 x 3", "viper", us["frame_viper"], "bytecode", us["frame_plain"]),
        ("deinterleave 1,600 sets", "viper", us["take_viper"], "bytecode", us["take_plain"]),
        ("sums, extremes, squares of 1,600 x 3", "viper", us["fold_viper"], "bytecode", us["fold_plain"]),
        ("encode a frame of ten values", "viper", us["encode_viper"], "bytecode", us["encode_plain"]),
    ]
    if theirs is not None:
        table.append(("encode the same message, CPython", "in place", ours, "minipb", theirs))
    if there is not None:
        table.append(("encode the same message, MicroPython", "viper", us["encode_viper"], "minipb", there))
    lines = ["| what | ours | µs | against | µs | ratio |", "|---|---|---|---|---|---|"]
    for what, name, mine, other, against in table:
        lines.append(f"| {what} | {name} | {mine:.1f} | {other} | {against:.1f} | {against / mine:.0f} x |")
    lines.append(f"\nHeap used by 100 frames from FIFO bytes on: {us['allocated']:.0f} bytes (viper).")
    return lines


if __name__ == "__main__":
    print("\n".join(rows()))
