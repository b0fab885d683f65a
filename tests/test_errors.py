"""How a command ends: the exit code, and one line instead of a traceback."""

import os
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
    "what the disk says": (
        "raise PermissionError(13, 'Permission denied', 'a.wav')",
        2,
        "error: a.wav: Permission denied; check the path, its rights and the disk\n",
    ),
    "no memory": (
        "raise MemoryError",
        2,
        "error: memory is full (none is left); use smaller batches, shorter parts or fewer processes (see --help)\n",
    ),
    "no memory on a device": (
        "raise RuntimeError('CUDA out of memory. Tried')",
        2,
        "error: memory is full (CUDA out of memory. Tried); use smaller batches, shorter parts or fewer processes "
        "(see --help)\n",
    ),
    "a loader that died": (
        "raise RuntimeError('DataLoader worker (pid 1) is killed by signal: Killed.')",
        2,
        "error: a process that prepares batches died, maybe for lack of memory; use a smaller --num_workers\n",
    ),
    "a name of any bytes": ("print(chr(0xdcff) + chr(0x2192))", 0, ""),
    "a mistake in a file of a name of any bytes": ("raise UserError(chr(0xdcff))", 2, "error: \\udcff\n"),
    "a name that UTF-8 does not have": (
        "(chr(0xdcff) + '.wav').encode()",
        2,
        r"error: '\udcff.wav': this name is not text of the encoding utf-8; rename it or set PYTHONUTF8=1" + "\n",
    ),
}


@pytest.mark.parametrize(("body", "code", "stderr"), ENDS.values(), ids=ENDS)
def test_commands_end_with_a_code_and_one_line(body, code, stderr):
    """In an 8-bit locale."""
    command, settings = [sys.executable, "-c", f"{BEGIN}{body}\nrun(main)"], {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | settings)
    assert (done.returncode, done.stderr) == (code, stderr)


def test_names_are_utf8_in_every_locale(tmp_path):
    (tmp_path / "ä").touch()
    (tmp_path / "x.py").write_text(f"{BEGIN}import os; print(ascii(os.listdir('.')))\nrun(main)\n", encoding="utf-8")
    settings = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "x.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | settings)
    assert "'\\xe4'" in done.stdout


@pytest.mark.parametrize(("redirected", "code"), [("2>&-", 2), ("2>/dev/full", 2), (">&- 2>&-", 2), (">/dev/full", 2)])
def test_streams_that_are_closed_or_full_change_nothing_else(tmp_path, redirected, code):
    """Without a stderr the first file that is opened would get what is printed there."""
    body = f"file = open('{tmp_path}/a', 'w'); print('x'); raise UserError('b')"
    script = f'PYTHONUNBUFFERED= {sys.executable} -c "{BEGIN}{body}\nrun(main)" {redirected}'
    done = subprocess.run(script, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "error: b\n" if redirected.startswith(">/dev") else "")
    assert done.stdout == ("x\n" if redirected.startswith("2") else "")
    assert (tmp_path / "a").read_text() == ""


def test_output_that_nobody_reads_to_its_end_is_no_traceback():
    script = f"{BEGIN}[print('x' * 100, flush=True) for _ in range(100_000)]\nrun(main)"
    writer = [sys.executable, "-c", script]
    with subprocess.Popen(writer, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "x" * 100 + "\n"
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (141, "stopped: what is printed is read no further\n")
