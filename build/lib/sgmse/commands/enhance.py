"""Enhance noisy speech with a noise reference and classifier-free guidance.

  python enhancement_noise_cond.py --guidance_scale 3
      the newest checkpoint on the small test set that comes with the code
  python enhancement_noise_cond.py --ckpt CKPT --test_dir SET --enhanced_dir OUT
      SET/noisy with the references of SET/ref
  python enhancement_noise_cond.py --ckpt CKPT --test_dir NOISY --noise_ref fan.wav --guidance_scale 1.5
      one noise recording for every file
  python enhancement_noise_cond.py --ckpt CKPT --test_dir NOISY --guidance_scale 1.5
      no recording: the reference is estimated from each noisy file alone
  python enhancement_noise_cond.py --ckpt CKPT --test_dir SET --enhanced_dir OUT --reference mismatched
      the references of other items of the set: a model that does as well with these does not use its reference
  python enhancement_noise_cond.py --ckpt CKPT --test_dir RECORDINGS --chunk_s 10
      recordings of any length, in the memory of 10 seconds (by default of 30)
  python enhancement_noise_cond.py --ckpt CKPT --test_dir SET --enhanced_dir OUT --shard 2/8
      the second of eight shares of the files, for eight processes or jobs that fill one folder at the same time
  cat noisy.flac | python enhancement_noise_cond.py --ckpt CKPT --test_dir - > enhanced.wav
      one file through a pipe

Every format that libsndfile reads (wav, flac, mp3, ogg, opus, aiff, w64 and others), at any rate, with any number of
channels. Folder tree, names, rate, channels and length are kept.
OUT/run.json keeps the settings. Files done with the same settings are skipped, so a stopped run goes on; with other
settings all are done again.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from sgmse.common.errors import UserError, run
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.settings import cli
from sgmse.settings.config import EnhanceConfig

PIPE = "-"  # as --test_dir: one file from stdin


def main() -> None:
    parser = cli.make_parser([EnhanceConfig, GuidanceSettings], description=__doc__ or "", overrides=[SamplerSettings])
    layers = cli.parse(parser, sys.argv[1:])
    values = layers[-1].values
    sampler = {name: values[name] for name in SamplerSettings.__dataclass_fields__ if values[name] is not None}
    config, guidance = cli.take(EnhanceConfig, values), cli.take(GuidanceSettings, values)
    for flag, path, kind in (("--ckpt", config.ckpt, "checkpoint"), ("--test_dir", config.test_dir, "folder")):
        if path not in (None, PIPE) and not Path(str(path)).exists():
            raise UserError(f"{path}: no such {kind}; check {flag}")
    # this takes a second to load, which --help and a wrong path need not wait for
    from sgmse.enhancement.folder import enhance_folder, enhance_pipe

    if config.test_dir == PIPE:
        enhance_pipe(config, guidance, sampler, sys.stdin.buffer, sys.stdout.buffer)
    else:
        enhance_folder(config, guidance, sampler)


command = partial(run, main)
