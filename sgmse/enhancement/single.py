"""One recording in → one enhanced recording out: a file, or a pipe. Each is a folder of one file for a moment."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import soundfile

from sgmse.common.errors import UserError
from sgmse.common.files import explain_failure
from sgmse.data import audio
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.folder import PICTURE, RUN, enhance_folder, read_record
from sgmse.enhancement.request import Request
from sgmse.settings.config import EnhanceConfig


def enhance_file(config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], output: Path) -> Request:
    """Enhance the one recording of `config.noisy` into the file `output`, in the format of its suffix.

    Its record is OUTPUT.json, with the content of a folder's run.json. A file that is there is replaced if it has one.

    Args:
        sampler: settings that replace the checkpoint's.

    Raises:
        UserError: `output` is an input, or the file of somebody else.
    """
    noisy, record = Path(config.noisy[0]), output.with_name(f"{output.name}.json")
    if config.shard is not None:
        raise UserError(f"--shard {config.shard}: shares are of folders; leave it out for one file")
    for flag, path in (("NOISY", noisy), ("--noise_ref", config.noise_ref)):
        if path is not None and Path(path).resolve() == output.resolve():
            raise UserError(f"-o {output}: is the input {flag}; name another file for the result")
    if (output.exists() or record.exists()) and "checkpoint_sha256" not in read_record(record):
        other = output if output.exists() else record
        raise UserError(f"-o {output}: {other.name} exists and was not made by this command; name another file")
    with explain_failure(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=output.parent, prefix=f".{output.stem[:40]}.") as folder:
            config, header = dataclasses.replace(config, enhanced_dir=folder), audio.info(noisy)
            # a loss must not come twice
            suffix = ".wav" if header.is_lossy and noisy.suffix.lower() != output.suffix.lower() else noisy.suffix
            result = Path(folder, noisy.name).with_suffix(suffix)
            converted = Path(folder, "converted").with_suffix(output.suffix)
            is_converted = result.suffix.lower() != output.suffix.lower()
            if is_converted:
                form = header.sample_rate, 1 if config.channels == "mix" else header.channels, header.subtype
                _require_format(output, converted, *form)
            request = enhance_folder(config, guidance, sampler, is_temporary=True, suffix=suffix)
            if is_converted:
                peak = audio.write_blocks(converted, audio.read_blocks(result, None), *form)
                if peak > 1 and not audio.info(converted).is_float:
                    print(f"warning: {output} can hold nothing beyond ±1, so that it was attenuated to fit")
                result = converted
            for about in ("disagreement", Path(PICTURE).stem):  # those of an earlier result
                output.with_name(f"{output.name}.{about}.png").unlink(missing_ok=True)
            for picture in sorted(Path(folder).rglob("*.png")):  # beside the result, as OUTPUT.disagreement.png
                about = picture.stem if picture.parent == Path(folder) else picture.parent.name
                os.replace(picture, output.with_name(f"{output.name}.{about}.png"))
            os.replace(Path(folder, RUN), record)
            os.replace(result, output)
    print(f"enhanced: {output} (its settings: {record.name})")
    return request


def _require_format(output: Path, trial: Path, sample_rate: int, channels: int, subtype: str) -> None:
    """Raise `UserError` where the format of `output` has no such rate or channels; `trial` is written and removed."""
    try:
        audio.write_blocks(trial, [np.zeros((channels, sample_rate // 10), np.float32)], sample_rate, channels, subtype)
        trial.unlink()
    except UserError as error:
        if not isinstance(error.__cause__, soundfile.LibsndfileError):  # of the disk
            raise
        form = f"{sample_rate} Hz with {channels} channel{'s' * (channels > 1)}"
        raise UserError(f"-o {output}: {output.suffix} cannot hold {form}; use .wav") from None


def enhance_pipe(
    config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], source: BinaryIO, sink: BinaryIO
) -> None:
    """Enhance the audio file that `source` holds, of any format, into a WAV for `sink`. Both wait on the disk.

    What is printed goes to stderr.
    """
    for name in ("enhanced_dir", "noise_ref_dir", "oracle_noise", "shard"):
        if getattr(config, name):
            raise UserError(
                f"--test_dir - reads one file from stdin and writes its result to stdout; leave --{name}, which is "
                "for folders, out (--noise_ref names a reference)"
            )
    if source.isatty():
        raise UserError("--test_dir - reads stdin, which is a terminal; pipe an audio file in, as in `cat a.wav | ...`")
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        noisy, out = Path(folder, "in", "stdin.wav"), Path(folder, "out")
        noisy.parent.mkdir()
        try:
            try:
                with noisy.open("wb") as file:
                    shutil.copyfileobj(source, file)
            except OSError as error:
                reason = f"stdin cannot be kept there ({error.strerror})"
                raise UserError(f"{folder}: {reason}; make room or set TMPDIR") from None
            audio.info(noisy)
            config = dataclasses.replace(config, noisy=[], test_dir=str(noisy.parent), enhanced_dir=str(out))
            enhance_folder(config, guidance, sampler, is_temporary=True)
        except UserError as error:
            raise UserError(str(error).replace(str(noisy), "stdin").replace(str(noisy.parent), "stdin")) from None
        with (out / noisy.name).open("rb") as result:
            try:
                shutil.copyfileobj(result, sink)
                sink.flush()
            except BrokenPipeError:
                raise UserError("stdout was closed before the result was written; check what reads it") from None
