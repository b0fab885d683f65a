"""Enhance noisy speech with a noise reference and classifier-free guidance.

python enhancement_noise_cond.py --guidance_scale 3
    the newest checkpoint on the small test set that comes with the code
python enhancement_noise_cond.py --ckpt CKPT --test_dir set --enhanced_dir out
    set/noisy with the references of set/ref
python enhancement_noise_cond.py --ckpt CKPT --test_dir noisy --noise_ref fan.wav --guidance_scale 1.5
    one noise recording for every file

Folder tree, names and rates are kept. Files already done with the same settings are skipped, so a stopped run goes on.
Each value that is not given is said.
"""

from __future__ import annotations

import sys

from sgmse import cli
from sgmse.config import EnhanceConfig
from sgmse.enhancement import enhance_folder
from sgmse.errors import run
from sgmse.sampling import SamplerSettings


def main() -> None:
    parser = cli.make_parser([EnhanceConfig], description=__doc__ or "", overrides=[SamplerSettings])
    values, typed = cli.parse(parser, sys.argv[1:])
    sampler = {name: values[name] for name in SamplerSettings.__dataclass_fields__ if values[name] is not None}
    enhance_folder(cli.take(EnhanceConfig, values), sampler, set().union(*typed))


if __name__ == "__main__":
    run(main)
