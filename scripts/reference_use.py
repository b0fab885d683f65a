"""Is the noise reference used, ignored, or does it leak? A verdict on a checkpoint, from a test set.

Enhances SET (noisy/, clean/, ref/, manifest.csv, as scripts/make_testset.py writes them) with one reference after the
other and compares the results file by file:

  matched     SET/ref: the same recording as the mixture's noise, no common sample
  same_class  another recording of the same kind of noise         mismatched  noise of another kind
  louder      the matched one 6 dB up                             softer      6 dB down
  shuffled    its segments of 50 ms in random order               estimated   made from the noisy file alone
  null        none (models trained with dropping)                 oracle      overlaps the mixture's noise: it leaks

and, with --baseline, with a model that was trained without any reference and otherwise alike. DIR gets

  scores.csv    a row per file and system; results.sqlite keeps what is done, and a rerun goes on there
  table.md      the verdict, means, paired differences with 95 % intervals, all by noise class and by SNR
  use.png       the paired differences

Without references of its own for same_class or mismatched (ref_NAME/), a set lends those of its other items, by kind
and source in manifest.csv, at the level of the right one. What cannot run is said, and the rest runs.

examples:
  python scripts/reference_use.py CKPT SET --baseline BASE
  python scripts/reference_use.py CKPT_0 SET --more_seeds CKPT_1 CKPT_2 --baseline BASE_0 BASE_1 BASE_2
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sgmse.common.bounds import Bounds, InputDir, InputModel
from sgmse.common.errors import UserError, run
from sgmse.common.files import require_own_folder
from sgmse.common.lock import locked_folder
from sgmse.common.machine import cores, device
from sgmse.common.typed import print_next
from sgmse.settings.cli import positional, read_command_line
from sgmse.settings.config import Count, Seed

if TYPE_CHECKING:
    from sgmse.diagnostics import use
    from sgmse.enhancement.test_set import TestSet


@dataclass(frozen=True)
class UseSettings:
    """What is examined, and how"""

    ckpt: InputModel = positional()
    """checkpoint of a model with a noise encoder"""
    test_set: InputDir = positional()
    """folder with noisy/, clean/, ref/, manifest.csv"""
    more_seeds: list[InputModel] = field(default_factory=list)
    """checkpoints of the same model, trained with other seeds"""
    baseline: list[InputModel] = field(default_factory=list)
    """checkpoints of the model trained without reference (--encoder none), as many seeds as there are"""
    out: Path | None = None
    """folder of the results. Default: results/reference_use/RUN_SET"""
    guidance_scale: Annotated[float, Bounds(-99, 99)] = 1.0
    """how hard the reference is followed under all protocols but the null; 1: no guidance"""
    N: Count | None = None
    """sampling steps. Default: each checkpoint's own"""
    metrics: list[str] = field(default_factory=list)
    """metrics beside PESQ, ESTOI and SI-SDR, e.g. right_talker"""
    max_files: Count | None = None
    """so many files, spread over the set. Default: all"""
    batch_size: Count = 8
    """files at a time"""
    encoder_checkpoint: str | None = None
    """weights of a frozen clap or panns encoder"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the networks run"""
    seed: Seed = 0
    """drives sampling, cutting and shuffling"""
    jobs: Count = field(default_factory=cores)
    """scoring processes. Default: the cores"""


def main() -> None:
    settings = read_command_line(UseSettings, __doc__)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.diagnostics import use, verdict
    from sgmse.evaluation.metrics import select_metrics
    from sgmse.evaluation.results import Results
    from sgmse.evaluation.scores import scorer

    asked = select_metrics(settings.metrics)
    used_device = device(settings.device)
    models = use.load_subjects([settings.ckpt, *settings.more_seeds], settings.encoder_checkpoint)
    check_model(settings, models[0])
    baselines = use.load_baselines(settings.baseline, settings.ckpt) if settings.baseline else []
    test_set = use.open_set(settings.test_set, models[0].model, settings.max_files)
    # refuses steps that one of them cannot take, before any work
    plan = [
        (one, use.plan_settings(one, test_set, settings.N, settings.guidance_scale, settings.seed))
        for one in (*models, *baselines)
    ]
    folder = settings.ckpt.parent
    run_name = folder.parent.name if folder.name == "checkpoints" else settings.ckpt.stem
    names = run_name, settings.test_set.resolve().name
    title, out = " on ".join(names), settings.out or Path("results", "reference_use", "_".join(names))
    require_own_folder(out, ["results.sqlite"])
    with locked_folder(out, "filled"):
        results = Results(out, shared_facts(settings, used_device, test_set))
        refused = use.describe_refused(test_set, bool(baselines))
        if results.changed:
            print(f"everything is done again: {results.describe_change()}")
        print(f"model: {', '.join(str(one.path) for one in models)} ({models[0].model.settings['encoder']})")
        print(f"baseline: {', '.join(str(one.path) for one in baselines) or 'none'}")
        words = [use.FILE_WORDS.get(protocol, protocol) for protocol in test_set.runnable]
        print(f"{settings.test_set}: {len(test_set.items)} files; references: {', '.join(words)}")
        print("".join(f"  {line}\n" for line in refused), end="")
        use.score_leaks(test_set, results, models[0].model.settings["sample_rate"], settings.seed, settings.jobs)
        with scorer(settings.jobs, asked) as score:
            use.score_plan(plan, test_set, settings.batch_size, used_device, results, score)
        scores = use.collect_scores(plan, results)
        use.write_scores(scores, out / "scores.csv")
        unlike = use.compare_training(models[0], baselines[0], settings.N) if baselines else []
        remarks = refused + use.describe_training(models, baselines, unlike)
        text, written = verdict.write_report(scores, title, unlike, remarks, out)
    print(f"\n{text}\n{out}: {', '.join(['scores.csv', *written])}")
    print_next("scripts/condition_probes.py", settings.ckpt, settings.test_set)


def check_model(settings: UseSettings, subject: use.Subject) -> None:
    """Raise `UserError` for a model without encoder, and for guidance that it does not know."""
    model = subject.model
    if model.encoder is None:
        raise UserError(
            f"{subject.path}: has no noise encoder, so there is no reference to use; name a conditioned model, and "
            "this one with --baseline"
        )
    if settings.guidance_scale != 1 and model.cond_drop_prob == 0:
        raise UserError(
            f"--guidance_scale {settings.guidance_scale:g}: the checkpoint was trained without dropping references, "
            "so there is nothing to guide; leave it out"
        )


def shared_facts(settings: UseSettings, used_device: str, test_set: TestSet) -> dict[str, Any]:
    """What all rows share beside their setting; rows of other values are done again."""
    facts = {
        "command": "reference_use",
        "test_set": str(settings.test_set.resolve()),
        "files": [item.name for item in test_set.items],
    }
    facts |= {"references": test_set.fingerprint(), "borrowed": sorted(test_set.levelled)}
    facts |= {"metrics": sorted(settings.metrics)} if settings.metrics else {}
    return facts | {"device": used_device, "batch_size": settings.batch_size}


if __name__ == "__main__":
    run(main)
