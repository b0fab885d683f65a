"""Every command that README.md and docs/ tell a reader to type exists and knows its flags."""

import contextlib
import importlib
import io
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python ((?:scripts/)?\w+\.py)([^`\n|&;]*)")
FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")


def commands():
    """(file, script, flags) of every command, lines that end in a backslash joined, comments cut."""
    for path in TEXTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, rest in COMMAND.findall(text):
            yield path.name, script, tuple(FLAG.findall(rest.partition("  #")[0]))


@cache
def known_flags(script):
    """The flags in the --help_all of a command."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    main = getattr(module, "main", None) or module.command.args[0]  # command is partial(run, main)
    told, before = io.StringIO(), sys.argv
    sys.argv = [script, "--help_all"]
    try:
        with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
            main()
    finally:
        sys.argv = before
    return set(FLAG.findall(told.getvalue()))


@pytest.mark.parametrize(
    ("text", "script", "flags"),
    [pytest.param(*found, id=f"{found[0]}: {found[1]}") for found in sorted(set(commands()))],
)
def test_documented_commands_exist_and_know_their_flags(text, script, flags):
    assert (ROOT / script).is_file()
    assert set(flags) <= known_flags(script), f"{text}: python {script}"


def test_commands_are_found_in_the_documents():
    found = {script for _, script, _ in commands()}
    assert {"train.py", "enhancement_noise_cond.py", "scripts/evaluate.py", "scripts/reference_use.py"} <= found
    assert len(found) >= 12
