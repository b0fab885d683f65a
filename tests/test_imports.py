"""The folder layout is the architecture: imports point down, form no cycle, and touch no network."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# a module may import modules of lower floors, and of its own
FLOORS = [
    {"errors", "arguments", "bounds", "download"},
    {"data", "metrics", "sde", "transform", "conditioning", "ema", "chunking", "frame_noise"},
    {"familiarity"},
    {"sampling", "guidance", "losses", "precondition", "optimisation"},
    {"backbone", "encoders"},
    {"auxiliary"},
    {"inference"},
    {"api"},
    {"model"},
    {"config", "checks", "cli", "build", "checkpoints", "runs", "validation"}
    | {"resumption", "preemption", "clusters", "loggers"}
    | {"enhancement", "evaluation", "leakage", "report", "doctor", "sweep", "experiments", "diagnostics", "statistics"},
]
# rooms on one floor that must not know of each other
STRANGERS = [
    ({"data", "metrics"}, {"sde", "transform", "conditioning", "ema", "sampling", "losses", "precondition"}),
    ({"backbone"}, {"encoders", "data"}),
]


def files() -> list[Path]:
    return sorted((ROOT / "sgmse").rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "sgmse").parts[0].removesuffix(".py")


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


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if path.name == "__init__.py" and path.parent.name == "sgmse":
        assert imported(path) == set()
        return
    here = room(path)
    rooms = {name.split(".")[1] for name in imported(path)}
    assert {r for r in rooms if floor(r) > floor(here)} == set()
    for a, b in STRANGERS:
        assert not (here in a and rooms & b)
        assert not (here in b and rooms & a)


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
import train, enhancement_noise_cond
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
