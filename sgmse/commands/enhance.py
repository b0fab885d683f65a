"""Enhance noisy speech with a recording of the noise alone.

  python enhancement_noise_cond.py noisy.wav --noise_ref fan.wav -o out.wav
      one recording, with one of its noise
  python enhancement_noise_cond.py a.wav b.wav --noise_ref fan.wav -o enhanced
      several, or a folder of them, into a folder
  python enhancement_noise_cond.py noisy.wav -o out.wav
      without a recording of the noise: the reference is estimated from the noisy file
  python enhancement_noise_cond.py SET --ckpt CKPT -o OUT --guidance_scale 1.5
      a test set, SET/noisy with the references of SET/ref, by a model of your own

Every format that libsndfile reads (wav, flac, mp3, ogg, opus, aiff, w64 and others), at any rate, with any number of
channels. Names, rate, channels and length are kept. OUT/run.json (of one file out.wav.json) keeps the settings. Files
of a folder that are done with the same settings are skipped, so a stopped run goes on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.common.typed import print_next
from sgmse.data import listing
from sgmse.data.containers import FOREIGN_SUFFIXES, FORMATS
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.model.pretrained import find_model
from sgmse.settings import cli
from sgmse.settings.checks import check_enhancement
from sgmse.settings.config import EnhanceConfig

PIPE = "-"  # in place of a noisy file: one from stdin
COMMON = """noisy enhanced_dir ckpt noise_ref noise_ref_dir reference guidance_scale sampler N batch_size chunk_s
channels num_samples seed device""".split()
DETAILS = """
more examples:
  python enhancement_noise_cond.py --guidance_scale 3
      the newest checkpoint on the small test set that comes with the code
  python enhancement_noise_cond.py SET --ckpt CKPT -o OUT --reference mismatched
      the references of other items of the set: a model that does as well with these does not use its reference
  python enhancement_noise_cond.py RECORDINGS --ckpt CKPT --chunk_s 10
      recordings of any length, in the memory of 10 seconds (by default of 30)
  python enhancement_noise_cond.py SET --ckpt CKPT -o OUT --shard 2/8
      the second of eight shares of the files, for eight processes or jobs that fill one folder at the same time
  cat noisy.flac | python enhancement_noise_cond.py - > enhanced.wav
      one file through a pipe
"""


def main() -> None:
    groups = [EnhanceConfig, GuidanceSettings]
    parser = cli.make_parser(groups, __doc__ or "", overrides=[SamplerSettings], common=COMMON, details=DETAILS)
    values = cli.parse(parser, sys.argv[1:])[-1].values
    sampler = {name: values[name] for name in SamplerSettings.__dataclass_fields__ if values[name] is not None}
    config, guidance = resolve_input(cli.take(EnhanceConfig, values)), cli.take(GuidanceSettings, values)
    output = None if config.test_dir == PIPE else find_output(config)
    check_enhancement(config, guidance)
    if config.ckpt is not None:
        find_model(config.ckpt)
    for flag, path, kind in (("--test_dir", config.test_dir, "folder"), ("--noise_ref", config.noise_ref, "file")):
        if path not in (None, PIPE) and not Path(str(path)).exists():
            raise UserError(f"{path}: no such {kind}; check {flag}")
    # this takes a second to load, which --help and a wrong path need not wait for
    from sgmse.enhancement.folder import enhance_folder
    from sgmse.enhancement.single import enhance_file, enhance_pipe

    if config.test_dir == PIPE:
        enhance_pipe(config, guidance, sampler, sys.stdin.buffer, sys.stdout.buffer)
    elif output is not None:
        request = enhance_file(config, guidance, sampler, output)
        takes_reference = request.engine.model.encoder is not None
        if takes_reference and not (
            config.reference or config.noise_ref or config.noise_ref_dir or config.oracle_noise
        ):
            print_next("enhancement_noise_cond.py", *sys.argv[1:], "--noise_ref", "NOISE.wav")
    else:
        request = enhance_folder(config, guidance, sampler)
        folder = request.test_set.folder
        if config.shard is None and folder is not None:
            is_set = folder.name == "noisy" and (folder.parent / "clean").is_dir()
            clean = ["--clean_dir", folder.parent / "clean"] if is_set else []
            folders = [*clean, "--noisy_dir", folder, "--enhanced_dir", request.out_dir]
            print_next("scripts/evaluate.py", *folders, "--page", "page")


def resolve_input(config: EnhanceConfig) -> EnhanceConfig:
    """The settings with a folder that stands without flag as --test_dir, and all files that are named checked."""
    noisy = config.noisy
    if not noisy:
        return config
    if config.test_dir is not None:
        raise UserError(f"{noisy[0]} and --test_dir {config.test_dir}: both are input; give one of them")
    if len(noisy) == 1 and (noisy[0] == PIPE or Path(noisy[0]).is_dir()):
        return replace(config, noisy=[], test_dir=noisy[0])
    listing.check_named([Path(name) for name in noisy])
    return config


def find_output(config: EnhanceConfig) -> Path | None:
    """The file that --enhanced_dir names, for one recording; None where it is a folder.

    Raises `UserError` for a file where there are several recordings, and for a format that cannot be written.
    """
    name = config.enhanced_dir
    if name is None or name.endswith("/") or Path(name).is_dir():
        return None
    suffix = Path(name).suffix.lower()
    if len(config.noisy) == 1 and suffix in FORMATS:
        return Path(name)
    if suffix in FORMATS or suffix in FOREIGN_SUFFIXES:
        what = "a format that is not written here" if suffix not in FORMATS else "one file, but there may be several"
        raise UserError(f"-o {name}: names {what}; name a folder, or for one recording a file such as out.wav")
    if len(config.noisy) == 1 and suffix:
        raise UserError(
            f"-o {name}: {suffix} is no format that is written here; use one of {', '.join(FORMATS)}, or end the "
            "name of a folder in /"
        )
    return None


command = partial(run, main)
