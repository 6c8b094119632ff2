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
# What MicroPython has, and what a twin for CPython imports behind a guard.
MICROPYTHON = {"array", "binascii", "errno", "gc", "hashlib", "json", "machine", "math", "micropython", "os", "random"}
MICROPYTHON |= {"select", "socket", "ssl", "struct", "sys", "time", "zlib"}
GUARDED = {"numpy", "tomllib", "argparse", "signal"}


def modules(package):
    return sorted(p for p in PACKAGES[package].rglob("*.py") if not p.name.endswith("_pb2.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of what is imported"
            yield node.module


def imported_tops(paths):
    return {(str(path.relative_to(ROOT)), name.split(".")[0]) for path in paths for name in imports(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package):
    allowed = MAY_IMPORT[package] | {package}
    assert not {(path, top) for path, top in imported_tops(modules(package)) if top in PACKAGES and top not in allowed}


def test_the_device_imports_what_micropython_has():
    portable = [path for path in modules("triax") if "ports" not in path.parts]
    assert not {(path, top) for path, top in imported_tops(portable) if top not in MICROPYTHON | GUARDED | {"triax"}}


def names_of(tree):
    """Names that a module defines or imports at its top level, also behind `if` and `try`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("package", [p for p in PACKAGES if p != "triax"])
def test_every_module_says_what_it_offers(package):
    for path in modules(package):
        if path.name == "__init__.py":
            continue
        where = path.relative_to(ROOT)
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{where} has no docstring"
        lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
        assert len(lists) == 1, f"{where} has no __all__"
        assert set(ast.literal_eval(lists[0])) <= names_of(tree), f"{where}: __all__ names what is not there"
