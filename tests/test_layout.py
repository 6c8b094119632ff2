"""Which package may import which, and that every module says what it offers."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "triax": ROOT / "device/triax",
    "triax_proto": ROOT / "proto/triax_proto",
    "triax_backend": ROOT / "sim/triax_backend",
    "triax_sim": ROOT / "sim/triax_sim",
    "triax_tools": ROOT / "host_tools/triax_tools",
}
MAY_IMPORT = {
    "triax": set(),
    "triax_proto": set(),
    "triax_backend": {"triax_proto"},
    "triax_sim": {"triax", "triax_proto", "triax_backend"},
    "triax_tools": {"triax", "triax_proto", "triax_backend", "triax_sim"},
}
# What MicroPython has, beside what a port or a twin for CPython imports behind a guard.
MICROPYTHON = {
    "array",
    "binascii",
    "builtins",
    "errno",
    "gc",
    "hashlib",
    "io",
    "json",
    "machine",
    "math",
    "micropython",
    "network",
    "os",
    "random",
}
MICROPYTHON |= {
    "select",
    "socket",
    "ssl",
    "struct",
    "sys",
    "time",
    "zlib",
    "asyncio",
    "collections",
    "re",
    "esp32",
    "rp2",
    "vfs",
    "uctypes",
    "deflate",
}
NODE_GUARDED = {"numpy", "spidev", "smbus2", "gpiod", "tomllib", "argparse", "signal"}


def modules(package):
    return sorted(p for p in PACKAGES[package].rglob("*.py") if not p.name.endswith("_pb2.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of what is imported"
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if (top := name.split(".")[0]) in PACKAGES and top != package and top not in MAY_IMPORT[package]
    }
    assert not wrong


def test_the_device_imports_what_micropython_has():
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("triax")
        if "ports" not in path.parts
        for name in imports(path)
        if (top := name.split(".")[0]) not in MICROPYTHON | NODE_GUARDED | {"triax"}
    }
    assert not wrong


@pytest.mark.parametrize("package", [p for p in PACKAGES if p != "triax"])
def test_every_module_says_what_it_offers(package):
    for path in modules(package):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree) or path.name == "__init__.py", f"{path.relative_to(ROOT)} has no docstring"
        offered = next(
            (
                ast.literal_eval(n.value)
                for n in tree.body
                if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"
            ),
            None,
        )
        if path.name in ("__init__.py", "__main__.py"):
            continue
        assert offered is not None, f"{path.relative_to(ROOT)} has no __all__"
        defined = {getattr(n, "name", None) for n in tree.body} | {
            t.id
            for n in tree.body
            for t in (n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)])
            if isinstance(t, ast.Name)
        }
        imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert set(offered) <= defined | imported, f"{path.relative_to(ROOT)}: __all__ names what is not there"
