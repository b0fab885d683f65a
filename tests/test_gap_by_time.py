"""Where in diffusion time the condition acts: a denoiser whose gap is known, the proposed interval, the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call, refusal, saved_run
from short_set import short_set
from tiny import tiny
from torch import nn

from scripts import condition_probes
from sgmse.common.errors import UserError
from sgmse.data import audio, listing
from sgmse.diagnostics import gap
from sgmse.diagnostics.items import ProbeFile, read_items
from sgmse.diffusion import losses
from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.sde import OUVE, per_item

GRID = [round(t, 4) for t in torch.linspace(0.03, 1, gap.NUM_TIMES).tolist()]


class Mean(nn.Module):
    """An encoder whose vector holds the mean of the reference."""

    def forward(self, reference: torch.Tensor, length: torch.Tensor) -> Condition:
        return Condition((reference.sum(dim=1) / length.clamp_min(1))[:, None].expand(-1, 4))


def item(matched: float = 0.1, other: float | None = 0.5) -> ProbeFile:
    noisy, clean = torch.randn(2, 2048, generator=torch.Generator().manual_seed(0)) * 0.1
    wrong = None if other is None else torch.full((3000,), other)
    return ProbeFile("a.wav", noisy, clean, torch.full((3000,), matched), wrong, "rain.wav", "rain", "")


def toy(cond_drop_prob: float = 0.1):
    """A denoiser that is off by (0.3 − mean of the reference) · t in every bin."""
    model = tiny(cond_drop_prob=cond_drop_prob).eval()
    model.encoder = Mean()
    x = model.transform(item().clean[None])
    model.predict = lambda x_t, y, t, c: x + per_item((0.3 - c.vector[:, 0]) * t, x_t)
    return model


def test_losses_and_effects_of_a_known_denoiser_are_the_closed_form():
    rows = gap.measure_gap(toy(), [item()], seed=0, batch_size=5)
    assert list(rows["t"]) == GRID * 2
    t = torch.tensor(GRID, dtype=torch.float64)
    for against, off, effect in (("null", 0.3, (0.1 / 0.3) ** 2), ("mismatched", -0.2, 4.0)):
        found = rows[rows["against"] == against]
        assert found["loss_matched"].tolist() == pytest.approx((0.5 * (0.2 * t) ** 2).tolist(), rel=1e-3)
        assert found["loss_against"].tolist() == pytest.approx((0.5 * (off * t) ** 2).tolist(), rel=1e-3)
        assert found["effect"].tolist() == pytest.approx([effect] * len(t), rel=1e-3)
    lines = gap.average_over_files(rows).set_index("against")
    assert lines.loc["null", "relative_gap"].tolist() == pytest.approx([1 - 4 / 9] * len(t), rel=1e-3)
    assert lines.loc["mismatched", "gap"].abs().max() < 1e-6


def test_how_many_times_run_at_once_changes_nothing():
    model = tiny(sde="ouve").eval()
    noisy, clean, reference, other = torch.randn(4, 3000, generator=torch.Generator().manual_seed(1)) * 0.1
    own = replace(item(), noisy=noisy, clean=clean, reference=reference, other=other)
    together, alone = (gap.measure_gap(model, [own], seed=0, batch_size=size) for size in (12, 1))
    pd.testing.assert_frame_equal(together, alone, rtol=1e-3)
    assert (together["effect"] > 0).all()


def test_the_loss_of_a_score_is_that_of_its_clean_estimate_up_to_a_factor_of_time():
    sde, t = OUVE(), torch.tensor([0.1, 0.9])
    x, y, z, score = torch.randn(4, 2, 1, 8, 8, dtype=torch.complex64)
    mean, sigma = sde.mean(x, y, t), sde.std(t)
    batch = losses.Perturbed(x, mean + per_item(sigma, x) * z, t, mean, sigma, z)
    x_t = batch.x_t
    estimate = gap.clean_estimate(sde, score, x_t, y, t)
    factor = torch.exp(2 * sde.theta * t) * sigma**2
    torch.testing.assert_close(
        losses.data_prediction(estimate, batch, {"magnitude_weight": 0.0}),
        factor * losses.score_matching(score, batch, {}),
    )
    exact = gap.clean_estimate(sde, sde.score_from_clean(x_t, y, x, t), x_t, y, t)
    torch.testing.assert_close(exact, x, rtol=1e-4, atol=1e-4)


def test_a_model_trained_without_dropping_is_held_against_mismatched_references_alone():
    assert set(gap.measure_gap(toy(cond_drop_prob=0.0), [item()], 0, 12)["against"]) == {"mismatched"}
    with pytest.raises(UserError, match="nothing to hold the matched ones against"):
        gap.measure_gap(toy(cond_drop_prob=0.0), [item(other=None)], 0, 12)


def curve(effect: list[float], gap_low: float | list[float] = 0.01, t: list[float] | None = None) -> pd.DataFrame:
    times = t or [0.1 * (i + 1) for i in range(len(effect))]
    return pd.DataFrame({"t": times, "effect": effect, "gap": 0.1, "gap_low": gap_low})


@pytest.mark.parametrize(
    ("lines", "interval", "reason"),
    [
        (curve([0, 1, 4, 6, 4, 1, 0]), (0.25, 0.55), "at least half as much"),
        (curve([5, 6, 2, 1, 0]), (0.1, 0.25), "half"),
        (curve([0, 5, 0, 6, 4]), (0.35, 0.5), "half"),  # the other peak is not next to the largest
        (curve([0, 5, 4, 6, 4, 0], gap_low=[1, 1, 1, -1, 1, 1]), (0.15, 0.35), "half"),
        (curve([4, 4, 4, 4], gap_low=[-1, -1, 1, 1]), (0.25, 0.4), "for certain"),  # acts alike, helps late only
        (curve([6, 0, 0, 0], t=[0.034, 0.3, 0.6, 1.0]), (0.04, 0.16), "half"),  # within the times of training
        (curve([3, 4, 4, 3], gap_low=-1.0), None, "does not lower the loss"),
        (curve([3, 4, 4, 3]), None, "alike at all times"),
        (curve([0, 1e-5, 3e-5]), None, "changes nothing"),
        (curve([0, 6, 0], gap_low=-0.1), None, "does not lower the loss"),
        (curve([0, 6, 0], gap_low=float("nan")), None, "does not lower the loss"),
        (curve([0.5], t=[1.0]), None, "takes one step"),
    ],
)
def test_the_interval_is_where_the_condition_acts_and_lowers_the_loss(lines, interval, reason):
    found, why = gap.propose_interval(lines)
    assert found == (None if interval is None else pytest.approx(interval))
    assert reason in why


def test_a_predictor_knows_one_time():
    assert gap.time_grid(tiny(sampler=SamplerSettings(N=1), objective="predictive")).tolist() == [1.0]


def set_with_kinds(folder: Path, count: int) -> Path:
    short_set(folder, count, 1.0)
    rows = [f"{p.stem},kind{i % 2},source{i}\n" for i, p in enumerate(sorted((folder / "noisy").iterdir()))]
    (folder / "manifest.csv").write_text("id,kind,source\n" + "".join(rows))
    return folder


def test_items_hold_waveforms_over_the_peak_of_the_noisy_one_and_a_mismatched_reference(tmp_path):
    model, folder = tiny(), set_with_kinds(tmp_path / "set", 2)
    items, reason = read_items(folder, model, None)
    assert reason == ""
    assert {one.kind for one in items} == {"kind0", "kind1"}
    for one, other in (items, items[::-1]):
        files = ("noisy", one.name), ("clean", one.name), ("ref", one.name), ("ref", other.name)
        noisy, clean, own, lent = (torch.from_numpy(audio.read(folder / kind / name, 16000)) for kind, name in files)
        peak = noisy.abs().max()
        for found, expected in ((one.noisy, noisy), (one.clean, clean), (one.reference, own)):
            torch.testing.assert_close(found, expected / peak)
        assert one.other is not None
        torch.testing.assert_close(one.other, lent / lent.std() * own.std() / peak, rtol=0.02, atol=0.001)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("probes")
    bare = saved_run(root / "bare", encoder="none", cond_drop_prob=0.0)
    return {"RUN": saved_run(root / "run"), "BARE": bare, "SET": set_with_kinds(root / "set", 3)}


def test_the_command_writes_tables_and_pictures_of_every_part(runs, tmp_path, capsys):
    out = tmp_path / "out"
    text = call(condition_probes.main, capsys, runs["RUN"], runs["SET"], "--out", out, "--device", "cpu")
    assert "guidance interval" in text or "--guidance_interval" in text
    assert "no cross-attention" in text
    names = {"gap.csv", "gap_by_time.csv", "gap.png", "sensitivity.csv", "sensitivity.png"}
    assert {p.name for p in out.iterdir()} == names
    rows = pd.read_csv(out / "gap.csv")
    assert len(rows) == 3 * 2 * gap.NUM_TIMES
    assert set(rows["kind"]) == {"kind0", "kind1"}


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ("BARE SET", "bare/checkpoints/last.ckpt: was trained without a noise encoder"),
        ("RUN nowhere", "nowhere"),
        ("RUN SET --parts attention", "no cross-attention"),
        ("RUN SET --parts gaps", "--parts"),
        ("RUN SET --max_files 0", "--max_files"),
        ("RUN SET --out FILE", "FILE/results: cannot be written"),
        ("RUN", "SET"),
    ],
)
def test_what_cannot_be_probed_is_refused(words, culprit, runs, tmp_path, capsys):
    (tmp_path / "FILE").write_text("")
    known = runs | {"FILE": tmp_path / "FILE"}
    said = refusal(condition_probes.main, capsys, *(known.get(word, word) for word in words.split()))
    assert culprit.lower() in said.lower()


def test_files_with_a_silent_reference_are_left_out_and_a_set_without_others_is_refused(tmp_path):
    model, folder = tiny(), short_set(tmp_path / "set", 2, 1.0)
    first, second = listing.find(folder / "ref")
    audio.write(first, np.zeros(8000, np.float32), 16000)
    assert [item.name for item in read_items(folder, model, None)[0]] == [second.name]
    audio.write(second, np.zeros(8000, np.float32), 16000)
    with pytest.raises(UserError, match="all of its references are silent"):
        read_items(folder, model, None)
    (folder / "ref").rename(folder / "elsewhere")
    with pytest.raises(UserError, match="holds no ref/"):
        read_items(folder, model, None)
