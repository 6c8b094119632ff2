"""`make bench`: every figure of this repository, as Markdown tables. Each script runs alone; ratios are of one run."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("codec", "node_kernel", "calibrate", "sinks", "path", "ways", "generator", "stream")


def main() -> int:
    failed = []
    for name in SCRIPTS:
        print(f"\n## {name}\n", flush=True)
        if subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
