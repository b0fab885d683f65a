"""The folder layout is the architecture: imports point down, form no cycle, and touch no network."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# a room may import rooms of lower floors, and itself
FLOORS = [
    {"common"},
    {"data", "diffusion"},
    {"networks", "encoders"},
    {"settings"},
    {"model"},
    {"evaluation"},
    {"enhancement"},
    {"training", "doctor"},
    {"diagnostics", "experiments"},
    {"commands"},
]


def files() -> list[Path]:
    return sorted((ROOT / "sgmse").rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "sgmse").parts[0]


def imported(path: Path) -> set[str]:
    """Full names of the modules of ours that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("sgmse.")}


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def test_every_module_lives_in_a_room():
    assert [path.name for path in (ROOT / "sgmse").glob("*.py")] == ["__init__.py"]
    assert {room(path) for path in files()} - {"__init__.py"} == set().union(*FLOORS)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if path.parent.name == "sgmse":
        assert imported(path) <= {"sgmse.common.machine", "sgmse.common.machine.complete_environment"}
        return
    here = room(path)
    others = {name.split(".")[1] for name in imported(path)} - {here}
    assert {r for r in others if floor(r) >= floor(here)} == set()


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_imported_by_name_and_found_in_the_package(path):
    text = path.read_text(encoding="utf-8")
    assert "sys.path" not in text
    assert not re.search(r"__file__\)[^\n]*(parents|parent\.parent)", text), "a path above the module's own room"
    assert not re.search(r"(import_module|__import__)\(f?[\"']sgmse", text), "a module of ours imported by a string"


def test_no_two_modules_import_each_other():
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files()}
    arrows = {name: {n for n in imported(path) if n in names and n != name} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for other in arrows[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in names:
        visit(name, ())


def test_nothing_of_ours_imports_an_entry_point():
    for path in files():
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        assert not names & {"train", "enhancement_noise_cond", "scripts"}


def test_importing_everything_opens_no_connection():
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in files()]
    code = f"""
import socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened at import")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import importlib
for name in {modules!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
