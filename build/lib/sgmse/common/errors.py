"""Mistakes of the user, and what the machine refuses, told in one sentence."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory")


class UserError(Exception):
    """A mistake that the user can mend. The message is one sentence: which file or flag, what is wrong, what to do."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run an entry point; what ends it is one line on stderr instead of a traceback.

    Exit code 2: a `UserError`, or what the machine refuses (disk, rights, memory). 130: Ctrl-C. 141, that of SIGPIPE:
    nobody reads the output to its end (`| head`).
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        # in an 8-bit locale names with accents would be read wrongly, or not at all
        os.execve(sys.executable, sys.orig_argv, os.environ | {"PYTHONUTF8": "1"})
    _prepare_streams()
    code: int | str | None = 0
    sentence = ""
    try:
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush()  # at exit nobody would answer for its failure
    except Exception as error:
        end = _explain_end(error)
        if end is None:
            raise
        code, sentence = end
    except KeyboardInterrupt:
        code, sentence = 130, "interrupted"
    if sentence:
        with suppress(OSError):
            print(sentence, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # the flush at exit would fail again
    sys.exit(code)


def _explain_end(error: Exception) -> tuple[int, str] | None:
    """The exit code and the sentence for what ended a command; None for a fault of the program."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return 141, "stopped: what is printed is read no further"
    refusal = describe_refusal(error)
    return None if refusal is None else (2, f"error: {refusal}")


def describe_refusal(error: BaseException) -> str | None:
    """What the machine refuses (disk, rights, memory, a name), in one sentence; None for a fault of the program."""
    text = " ".join(str(error).split())
    if isinstance(error, UnicodeEncodeError):
        near = error.object[max(0, error.start - 60) : error.end + 60]
        return f"{near!a}: this name is not text of the encoding {error.encoding}; rename it or set PYTHONUTF8=1"
    if _is_out_of_memory(error):
        remedy = "use smaller batches, shorter parts or fewer processes (see --help)"
        return f"memory is full ({text[:100] or 'none is left'}); {remedy}"
    if "DataLoader worker" in text:
        return "a process that prepares batches died, maybe for lack of memory; use a smaller --num_workers"
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError | io.UnsupportedOperation):
        return None  # another pipe than stdout leads to a process of ours
    where = "" if _can_print() else "stdout: "
    if error.filename is not None:
        where = f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror or text}; check the path, its rights and the disk"


def is_of_machine(error: BaseException) -> bool:
    """Whether an error says nothing about the content of a file that was read.

    Torch reads at impossible places of a file that was cut, and has a RuntimeError for the end of memory.
    """
    return _is_out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _prepare_streams() -> None:
    """Names of any bytes can be printed, and closed streams (`2>&-`) lead nowhere instead of into files opened next."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _can_print() -> bool:
    """Whether stdout takes what was printed."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _nobody_reads() -> bool:
    """Whether stdout or stderr is the pipe that broke; others lead to worker processes."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)  # errors are reported without being asked for
    return bool(poll.poll(0))
