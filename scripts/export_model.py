"""Make a model folder of a training run: weights, settings and a card, for use by path or on the Hugging Face hub.

OUT gets model.safetensors (averaged weights), config.json (what rebuilds the model) and README.md (the card: data,
settings, scores, limits; read it before you publish). `--ckpt OUT` and `Enhancer.from_pretrained("OUT")` use the
folder. `hf upload OWNER/NAME OUT` publishes it, and then `--ckpt OWNER/NAME` uses it everywhere.

example:
  python scripts/export_model.py logs/RUN exported/fans --license MIT --data "our recordings of 40 fans (CC BY 4.0)" \\
      --scores scores.csv
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sgmse.common.bounds import File, InputDir
from sgmse.common.errors import UserError, run
from sgmse.common.files import read_table
from sgmse.common.typed import print_next
from sgmse.data.testsets.heldout import list_sittings
from sgmse.model.checkpoints import Checkpoint, is_ours, read, read_checkpoint, run_checkpoint
from sgmse.model.pretrained import write_folder
from sgmse.settings.checks import DYNAMIC_MIXING
from sgmse.settings.cli import positional, read_command_line
from sgmse.settings.config import CONDITIONING

UNSAID = "not said"
_SHOWN = """mix_snr_db reference_s noise_augment synthetic_share babble_share talker_share voice_speed mismatched_share
batch_size accumulate_grad_batches devices num_nodes lr max_steps seed""".split()


@dataclass(frozen=True)
class ExportSettings:
    """What to export, and what its card says"""

    run_dir: InputDir = positional()
    """folder of a run of train.py, or one of its checkpoints"""
    out: Path = positional()
    """folder to make; one that is there already is replaced"""
    license: str = UNSAID
    """licence of the weights"""
    data: str = UNSAID
    """what the model was trained on, and the licences of that"""
    limits: str = UNSAID
    """what the model cannot do"""
    scores: list[File] = field(default_factory=list)
    """tables of scripts/evaluate.py (--csv), one per test set; the names of the files become those of the sets"""


def main() -> None:
    settings = read_command_line(ExportSettings, __doc__)
    path = settings.run_dir if settings.run_dir.is_file() else run_checkpoint(settings.run_dir)
    if path is None:
        raise UserError(f"{settings.run_dir}: holds no checkpoint in checkpoints/; name the folder of a training run")
    content = read(path)
    if not is_ours(content):
        raise UserError(f"{path}: is not a checkpoint of train.py; published ones are used as they are")
    checkpoint = read_checkpoint(path)
    record = path.parent.parent / "config.yaml"
    records = list_sittings(record) if record.is_file() else []
    sittings = [yaml.safe_load(one.read_text(encoding="utf-8")) for one in records]
    commit = _commit(record)
    steps = int(content["global_step"])
    card = make_card(settings, checkpoint, sittings, steps, commit)
    write_folder(settings.out, checkpoint, card, {"steps": steps, "commit": commit, "license": settings.license})
    size = sum(file.stat().st_size for file in settings.out.iterdir()) / 1e6
    print(f"{settings.out}: {size:.1f} MB after {steps} steps; read README.md in it")
    print_next(
        "enhancement_noise_cond.py", "noisy.wav", "--ckpt", settings.out, "--noise_ref", "noise.wav", "-o", "out.wav"
    )


def make_card(
    settings: ExportSettings, checkpoint: Checkpoint, sittings: list[dict[str, object]], steps: int, commit: str
) -> str:
    """The text of the model card, with the front matter that the Hugging Face hub reads.

    sittings: settings of the training, those of its last sitting last; a setting that changed shows all of its values.
    """
    from sgmse.evaluation.scores import summary
    from sgmse.evaluation.tables import markdown_rows, scores_table

    config, weights = checkpoint.config, sum(tensor.numel() for tensor in checkpoint.weights.values())
    reference = "takes no reference" if config.encoder == "none" else f"noise encoder {config.encoder}"
    unused = set(DYNAMIC_MIXING) if sittings and all(one.get("base_dir") for one in sittings) else set()
    unused |= CONDITIONING if config.encoder == "none" else set()
    rows = [["setting", "value"]]
    for name in (name for name in _SHOWN if name not in unused):
        values = dict.fromkeys(str(one[name]) for one in sittings if name in one)
        rows += [[name, ", then ".join(values)]] if values else []
    begun = " from the weights of another training" if any(one.get("init_ckpt") for one in sittings) else ""
    parts = [
        f"---\nlicense: {settings.license.lower()}\nlibrary_name: sgmse\ntags: [speech-enhancement, audio]\n---\n",
        f"# {settings.out.name}\n",
        f"Speech enhancement at {config.sample_rate / 1000:g} kHz: backbone {config.backbone}, {weights / 1e6:.1f} M "
        f"weights, {reference}, {config.sde} process with N = {checkpoint.sampler.N}.\n",
        "```python\nfrom sgmse.model import Enhancer\n\n"
        f'model = Enhancer.from_pretrained("{settings.out.name}")\n```\n',
        f"**Trained on:** {settings.data}\n\n**Licence:** {settings.license}\n\n**Cannot do:** {settings.limits}\n",
        f"## Training\n\n{steps} steps{begun}, of the code at commit {commit}.\n\n{markdown_rows(rows)}",
    ]
    for path in settings.scores:
        frame = read_table(path, ["system", "file"], f"make it with `python scripts/evaluate.py ... --csv {path}`")
        table = scores_table(summary(frame), path.stem, path.stem)
        rows = [table.header, *table.rows]
        parts.append(f"## Scores on {path.stem}\n\nMeans with 95 % intervals over sources.\n\n{markdown_rows(rows)}")
    return "\n".join(parts)


def _commit(record: Path) -> str:
    """The commit that config.yaml names in its first line."""
    first = record.read_text(encoding="utf-8").partition("\n")[0] if record.is_file() else ""
    return first.removeprefix("# code:").strip() if first.startswith("# code:") else UNSAID


if __name__ == "__main__":
    run(main)
