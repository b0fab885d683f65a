"""How a command ends: the exit code, and one line instead of a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BEGIN = "from sgmse.common.errors import UserError, run\ndef main():\n    "
ENDS = {
    "done": ("print('x')", 0, ""),
    "a mistake of the user": (
        "raise UserError('a.wav: is empty; remove it')",
        2,
        "error: a.wav: is empty; remove it\n",
    ),
    "Ctrl-C": ("raise KeyboardInterrupt", 130, "interrupted\n"),
}


@pytest.mark.parametrize(("body", "code", "stderr"), ENDS.values(), ids=ENDS)
def test_commands_end_with_a_code_and_one_line(body, code, stderr):
    done = subprocess.run([sys.executable, "-c", f"{BEGIN}{body}\nrun(main)"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, stderr)


def test_output_that_nobody_reads_to_its_end_is_no_traceback():
    script = f"{BEGIN}[print('x' * 100, flush=True) for _ in range(100_000)]\nrun(main)"
    writer = [sys.executable, "-c", script]
    with subprocess.Popen(writer, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "x" * 100 + "\n"
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (141, "stopped: what is printed is read no further\n")
