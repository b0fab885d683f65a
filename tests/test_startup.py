"""What is loaded before a command has something to do: --help, and mistakes, must not wait for large libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING = ["pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision"]
HEAVY = [*TRAINING, "matplotlib", "pandas", "sklearn"]
COMMANDS = ["train.py", "enhancement_noise_cond.py", *(f"scripts/{path.name}" for path in ROOT.glob("scripts/*.py"))]

# each command in a fork of one process that has loaded torch, which takes most of the time and is no fault here
HELP = """
import contextlib, importlib, io, json, os, sys
import sgmse.settings.config
sys.path[:0] = [os.getcwd(), "scripts"]
for command in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as answer:
            print(command, answer.read())
        os.wait()
        continue
    name = command.removeprefix("scripts/").removesuffix(".py")
    module = importlib.import_module(name)
    main = getattr(module, "main", None) or module.command.args[0]
    sys.argv = [command, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
    os.write(writing, json.dumps(sorted(name for name in sys.modules if "." not in name)).encode())
    os._exit(0)
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The libraries that are there after the --help of each command."""
    words = [sys.executable, "-c", HELP, json.dumps(COMMANDS)]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    lines = [line.partition(" ") for line in process.stdout.splitlines()]
    return {command: json.loads(names) for command, _, names in lines}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_no_large_library(loaded, command):
    assert {"sgmse"} <= set(loaded[command])
    assert [name for name in HEAVY if name in loaded[command]] == []


def test_enhancement_loads_nothing_that_only_training_and_pictures_need(tmp_path):
    noisy = next((ROOT / "sgmse/data/embedded/test/noisy").iterdir())
    code = (
        "import sys; from sgmse.commands.enhance import main; main(); import json; "
        "print(json.dumps(sorted(name for name in sys.modules if '.' not in name)))"
    )
    words = [sys.executable, "-c", code, str(noisy), "--ckpt", "small", "-o", "out.flac", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=True)
    names = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "out.flac").is_file()
    assert [name for name in (*TRAINING, "matplotlib") if name in names] == []
