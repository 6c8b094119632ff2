"""The evidence of a run: what a stranger needs to come to the same verdict without our servers.

    evidence.json     hashes of all files, scenario, seed, seal, gates, per-device digest of the ledger
    hops.npz          for each hop, how often each frame of the ledger was seen there, and which came damaged
    *.ledger, *.json  what each generator emitted and measured

`recheck` reads them all again: hashes, digests, counts at each hop, verdict.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from triax_sim import ledger as ledgers
from triax_sim.account import Account
from triax_sim.histogram import Histogram
from triax_sim.reconcile import Emitted, Hop

__all__ = ["recheck", "write"]

_MANIFEST = "evidence.json"


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write(directory: Path, found: Account, data: dict[str, Any]) -> None:
    """Put the evidence beside the generators' files."""
    arrays: dict[str, Any] = {f"{name}_seen": hop.seen for name, hop in found.hops.items()}
    arrays |= {f"{name}_damaged": np.packbits(hop.damaged) for name, hop in found.hops.items()}
    arrays["reserved"] = np.packbits(found.reserved)
    np.savez_compressed(directory / "hops.npz", **arrays)
    scenario = found.data["scenario"]
    files = sorted(p.name for p in directory.iterdir() if p.suffix in (".ledger", ".npz") or p.name == "seconds.json")
    files += sorted(p.with_suffix(".json").name for p in directory.glob("*.ledger") if p.with_suffix(".json").exists())
    manifest = {
        "verdict": data["verdict"],
        "reasons": data["reasons"],
        "checks": data["checks"],
        "scenario": scenario,
        "seed": scenario["seed"],
        "start_us": data["start_us"],
        "host": data["host"],
        "self_test": data["self_test"],
        "planted": data["planted"],
        "findings": data["findings"],
        "hops": {
            name: {k: hop[k] for k in ("frames", "missing", "repeated", "unexplained_missing", "unexplained_repeated")}
            for name, hop in data["hops"].items()
            if name in found.hops
        },
        "latency": {name: hop.latency.to_json() for name, hop in found.hops.items()},
        "files": {name: _hash(directory / name) for name in files},
        "ledger": ledgers.digest(found.emitted.rows),
    }
    (directory / _MANIFEST).write_text(json.dumps(manifest))


def recheck(directory: Path) -> dict[str, Any]:
    """Check a bundle offline: {"verdict", "problems", "hops"}; no problem means that files, ledger, counts and verdict agree.

    Raises OSError, ValueError if there is no bundle.
    """
    manifest = json.loads((directory / _MANIFEST).read_text())
    problems = []
    for name, wanted in manifest["files"].items():
        path = directory / name
        if not path.exists():
            problems.append(f"{name} is gone")
        elif _hash(path) != wanted:
            problems.append(f"{name} is not the file that the run wrote")
    if problems:
        return {"verdict": "INVALID", "problems": problems, "hops": {}}
    emitted = Emitted(ledgers.read(sorted(directory.glob("*.ledger"))))
    wrong = [d for d, digest in ledgers.digest(emitted.rows).items() if manifest["ledger"].get(d) != digest]
    if wrong:
        problems.append(f"the ledger of {len(wrong)} devices is another one, the first is {wrong[0]}")
    hops = {}
    with np.load(directory / "hops.npz") as arrays:
        for name, wanted in manifest["hops"].items():
            hops[name] = _count(emitted, name, arrays, manifest["latency"][name])
            for key, value in hops[name].items():
                if wanted[key] != value:
                    problems.append(f"{name}: {key} is {value}, the report says {wanted[key]}")
    problems += _verdict_problems(manifest)
    return {"verdict": "INVALID" if problems else manifest["verdict"], "problems": problems, "hops": hops}


def _count(emitted: Emitted, name: str, arrays: Any, latency: dict[str, Any]) -> dict[str, int]:
    hop = Hop(emitted, name)
    hop.seen = arrays[f"{name}_seen"]
    hop.damaged = np.unpackbits(arrays[f"{name}_damaged"], count=len(emitted.known)).astype(bool)
    hop.latency = Histogram.from_json(latency)
    ordinary = ~np.unpackbits(arrays["reserved"], count=len(emitted.known)).astype(bool)
    missing, extra = hop.missing, np.maximum(hop.seen.astype(np.int64) - 1, 0)
    counts = ordinary[missing]
    if name in ("postgres", "lake"):  # of the reserved devices' frames, those that Kafka had
        counts = counts | (arrays["kafka_seen"][missing] > 0)
    out = {"frames": int(((hop.seen > 0) & ordinary).sum()), "missing": int(counts.sum())}
    if name != "lake":  # the lake's are those beyond Kafka's
        out["repeated"] = int((extra if name == "postgres" else extra[ordinary]).sum())
    return out


def _verdict_problems(manifest: dict[str, Any]) -> list[str]:
    failed = {check["kind"] for check in manifest["checks"] if not check["holds"]}
    wanted = "INVALID" if "INVALID" in failed else "FAIL" if "FAIL" in failed else "PASS"
    return [] if wanted == manifest["verdict"] else [f"the checks give {wanted}, the report says {manifest['verdict']}"]
