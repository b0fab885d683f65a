"""Mistakes of the user, told in one sentence."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """A mistake that the user can mend. The message is one sentence: which file or flag, what is wrong, what to do."""


def run(main: Callable[[], None]) -> NoReturn:
    """Run an entry point; a `UserError` becomes one line on stderr and exit code 2, Ctrl-C exit code 130, output that
    nobody reads to its end (`| head`) exit code 141, that of SIGPIPE."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit would fail again
        print("stopped: what is printed is read no further", file=sys.stderr)
        sys.exit(141)
    sys.exit(0)


def _nobody_reads() -> bool:
    """Whether stdout is the pipe that broke; others lead to worker processes."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are reported without being asked for
    return bool(poll.poll(0))
