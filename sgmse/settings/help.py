"""What `--help` prints: the description, the settings that people need, and with `--help_all` all of them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from sgmse.common.bounds import ValueName, annotations_of, choices_of, is_list, kinds_of

_SHORT = 34  # characters of choices that stand where the value does, as in {auto,cpu,cuda}
_WIDEST = 110


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, each default once, and no wider than a page."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns - 2, _WIDEST)
        super().__init__(prog, max_help_position=30, width=width)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        silent = default in (None, argparse.SUPPRESS) or default is False or default == []
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        return text.replace("%", "%%") if silent else f"{text} (default: {shown})".replace("%", "%%")


def describe_value(name: str, hint: Any) -> str:
    """What stands for the value of a setting: `N`, `DIR`, `{auto,cpu,cuda}`; `...` behind those that take several."""
    choices, kinds = choices_of(hint), kinds_of(hint)
    named = [found.text for found in annotations_of(hint) if isinstance(found, ValueName)]
    if choices and len(shown := f"{{{','.join(choices)}}}") <= _SHORT:
        value = shown
    elif named:
        value = named[0]
    elif kinds & {int, float}:
        value = "N" if int in kinds else "X"
    elif name.endswith(("ckpt", "checkpoint")):
        value = "CKPT"
    else:
        value = "DIR" if Path in kinds or name.endswith("_dir") else "NAME"
    return value + (" ..." if is_list(hint) else "")


def hide_settings(parser: argparse.ArgumentParser, shown: list[str], count: int) -> None:
    """Leave only the settings `shown` in what the parser prints, and say how to see all of them, which are `count`."""
    for action in parser._actions:
        if action.dest not in shown:
            action.help = argparse.SUPPRESS
    parser.epilog = f"--help_all shows all {count} settings."
