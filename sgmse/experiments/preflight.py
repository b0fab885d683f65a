"""What would make a plan fail after hours is looked for before anything of it is begun."""

from __future__ import annotations

from pathlib import Path

from sgmse.data import corpora
from sgmse.encoders import weights
from sgmse.experiments import estimates, sets
from sgmse.experiments.plan import Plan
from sgmse.experiments.scales import VALID, Scale
from sgmse.experiments.work import merged_plan


def check(plan: Plan, scale: Scale, out: Path) -> dict[str, str]:
    """Raise `UserError` for corpora, folders or weights that are missing, a disk too small, or another plan in `out`.

    Returns the test sets that these data do not allow, each with what would.
    """
    merged_plan(out, plan)
    estimates.check_corpora(plan)
    for folders, what in ((plan.data.speech_dir, "speech"), (plan.data.noise_dir, "noise")):
        for split in ("train", "valid") if folders else ():
            corpora.split_files(folders, split, what)
    for training in plan.trainings.values():
        values = training.values
        if values["encoder"] in weights.PUBLISHED and not training.smoke:
            weights.locate(weights.PUBLISHED[values["encoder"]], values["encoder_checkpoint"])
    missing = sets.left_out((*plan.sets, VALID), plan.data)
    estimates.check_disk(plan, scale, out)
    return missing
