"""One noisy file from stdin, its enhancement to stdout; everything that is said goes to stderr."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.folder import enhance_folder
from sgmse.settings.config import EnhanceConfig

PIPE = "-"


def enhance_pipe(
    config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], source: BinaryIO, sink: BinaryIO
) -> None:
    """Enhance the audio file that `source` holds, of any format, into a WAV for `sink`. Both wait on the disk."""
    if config.enhanced_dir is not None or config.noise_ref_dir is not None or config.oracle_noise:
        raise UserError(
            "--test_dir - reads one file from stdin and writes its result to stdout; leave --enhanced_dir, "
            "--noise_ref_dir and --oracle_noise out (--noise_ref names a reference)"
        )
    if source.isatty():
        raise UserError("--test_dir - reads stdin, which is a terminal; pipe an audio file in, as in `cat a.wav | ...`")
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        noisy, out = Path(folder, "in", "stdin.wav"), Path(folder, "out")
        noisy.parent.mkdir()
        try:
            with noisy.open("wb") as file:
                shutil.copyfileobj(source, file)
            audio.info(noisy)
            config = dataclasses.replace(config, test_dir=str(noisy.parent), enhanced_dir=str(out))
            enhance_folder(config, guidance, sampler, piped=True)
        except UserError as error:
            raise UserError(str(error).replace(str(noisy), "stdin")) from None
        except OSError as error:
            raise UserError(
                f"{folder}: stdin cannot be kept there ({error.strerror}); make room or set TMPDIR"
            ) from None
        with (out / noisy.name).open("rb") as result:
            try:
                shutil.copyfileobj(result, sink)
                sink.flush()
            except BrokenPipeError:
                raise UserError("stdout was closed before the result was written; check what reads it") from None
