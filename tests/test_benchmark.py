"""The arithmetic of the benchmark, and that it runs. No test looks at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import encoders, enhance, loader, measure, network, published_network
from benchmarks.job import Job
from commands import refusal, saved_run
from short_set import short_set
from torch import nn

from scripts import benchmark
from sgmse.common.errors import UserError

ROOT = Path(__file__).parent.parent


class FakeClock:
    """A clock that only the things measured move on."""

    def __init__(self) -> None:
        self.seconds, self.log = 0.0, ""

    def task(self, name: str, seconds: float) -> measure.Call:
        def call() -> None:
            self.seconds += seconds
            self.log += name

        return call

    def now(self) -> float:
        return self.seconds


def test_measurements_take_turns_after_the_warm_up() -> None:
    clock = FakeClock()
    calls = {"A": clock.task("A", 1.0), "B": clock.task("B", 3.0)}
    assert measure.time_in_turns(calls, 2, clock.now, min_seconds=0.5) == {"A": [1.0, 1.0], "B": [3.0, 3.0]}
    assert clock.log == "AABB" + "AB" * 2


def test_short_calls_are_repeated_and_reported_per_call() -> None:
    clock = FakeClock()
    calls = {"A": clock.task("A", 0.25), "B": clock.task("B", 2.0)}
    assert measure.time_in_turns(calls, 1, clock.now, min_seconds=1.0) == {"A": [0.25], "B": [2.0]}
    assert clock.log == "AABB" + "AAAAB"


def test_rates_are_compared_round_by_round() -> None:
    seconds = {"bare": [1.0, 2.0], "ours": [4.0, 8.0], "conditioned": [5.0, 8.0], "published": [8.0, 12.0]}
    rows = {row.quantity: row for row in measure.speed_rows(seconds, 16e9, 8e9, crops=2, note="same")}
    assert rows["rate, GFLOP/s"].values == [4, 2]
    assert rows["bare convolution, GFLOP/s"].values == [8, 4]
    assert rows["rate / bare convolution"].values == [0.5, 0.5]
    assert rows["crops per second"].values == [0.5, 0.25]
    assert rows["speed, ours / published"].values == [2, 1.5]
    assert rows["time, conditioned / without"].values == [1.25, 1]


def test_operations_are_two_per_multiplication_and_include_attention() -> None:
    image, layer = torch.zeros(2, 3, 8, 6), nn.Conv2d(3, 5, 3, padding=1)
    assert measure.operations(lambda: layer(image)) == 2 * 2 * (8 * 6) * 9 * 3 * 5
    tokens = torch.zeros(1, 1, 10, 4)
    attention = nn.functional.scaled_dot_product_attention
    assert measure.operations(lambda: attention(tokens, tokens, tokens)) == 2 * 2 * 10 * 10 * 4


def test_audio_rate_counts_the_audio_between_arrivals() -> None:
    assert measure.audio_rates([10.0, 11.0, 12.0, 13.0, 16.0, 99.0], batch_s=8.0, batches=2) == [8.0, 4.0]


def test_more_is_the_difference_round_by_round() -> None:
    (row,) = measure.excess_rows([measure.Row("MiB", [5.0, 7.0])], [measure.Row("MiB", [4.0, 4.0])])
    assert row == ("more MiB", [1.0, 3.0], "")


class Complex(nn.Module):
    """One weight times x_t, as complex as the network's output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x_t: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.weight * x_t


def test_a_training_step_trains_and_a_forward_pass_does_not() -> None:
    network, data = Complex(), measure.network_inputs(1, 64, "cpu")
    measure.forward_pass(network, data, "32")()
    assert network.weight.item() == 1
    measure.training_step(network, data, "32")()
    assert network.weight.item() == pytest.approx(1 - 1e-4)  # Adam's first step is as long as its rate


def test_the_yardstick_of_training_has_three_times_the_operations_of_a_forward_pass() -> None:
    layer, images = measure.bare_convolution(1, 16, "cpu")
    once = measure.operations(measure.forward_pass(layer, images, "32"))
    assert measure.operations(measure.there_and_back(layer, images, "32")) == 3 * once


@pytest.mark.parametrize("part", [network.preset, network.sampling])
def test_presets_are_measured_round_by_round(part, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"batch_size": 2, "num_frames": 24, "nf": 8}
    values = encoders.preset_values("cpu")[1] | small
    monkeypatch.setattr(encoders, "preset_values", lambda device: ("small", values))
    monkeypatch.setattr(network, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(network, "SAMPLED_S", 0.3)
    rows = part(Job(device="cpu", rounds=2))
    assert len(rows) >= 4
    assert all(len(row.values) == 2 and min(row.values) > 0 for row in rows[:4])


ENHANCE = ["--parts", "enhance", "--ckpt", "a.ckpt", "--test_dir", "set"]


@pytest.mark.parametrize(
    ("typed", "culprit"),
    [
        (["--num_frames", "100"], "--num_frames 100"),
        (["--rounds", "0"], "--rounds 0"),
        (["--nf", "33"], "--nf"),
        (["--speech_dir", "speech"], "--noise_dir"),
        (["--parts", "enhance"], "--ckpt"),
        (["--parts", "enhance", "--ckpt", "a.ckpt"], "--test_dir"),
        ([*ENHANCE, "--interval", "0.7", "0.3"], "--interval"),
        ([*ENHANCE, "--guidance_scale", "1"], "--guidance_scale 1"),
        ([*ENHANCE, "--steps", "-1"], "--steps -1"),
        ([*ENHANCE, "--max_files", "0"], "--max_files 0"),
    ],
)
def test_bad_input_is_refused(typed: list[str], culprit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert culprit in refusal(benchmark.main, capsys, *typed)


def test_a_folder_without_the_published_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        published_network.check(tmp_path)


def test_the_loader_is_measured_round_by_round() -> None:
    rate, memory, varied, _ = loader.loader(Job(part="loader", num_frames=64, rounds=2))
    assert len(rate.values) == len(varied.values) == 2
    assert min(*rate.values, *varied.values, *memory.values) > 0


def test_attention_is_compared_with_the_network_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MIN_SECONDS", 0.0)
    job = Job(part="attention", width=8, device="cpu", num_frames=64, rounds=2, resolutions=(64,))
    assert [n for n, _ in measure.conditioned_network(8, ()).named_modules() if "cross" in n] == []
    assert "down.2.cross_attentions.0" in dict(measure.conditioned_network(8, (64,)).named_modules())
    forward, train = network.attention_speed(job)
    assert [forward.quantity, train.quantity] == ["forward, with / without", "train, with / without"]
    assert len(forward.values) == len(train.values) == 2
    assert min(*forward.values, *train.values) > 0
    assert network.attention_memory(job)[0].values[0] > 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Checkpoints of a bridge with a reference and of an OUVE model without one, and a test set."""
    logs = tmp_path_factory.mktemp("logs")
    ouve = saved_run(logs / "ouve", sde="ouve", encoder="none", cond_drop_prob=0.0)
    return saved_run(logs / "bridge"), ouve, short_set(logs / "set", 2, 0.8)


def enhancing(ckpt: Path, against: Path | None, test_set: Path, way: str = "") -> Job:
    chosen = {"steps": 5, "interval": [0.5, 0.7], "max_files": 2, "rounds": 1, "device": "cpu"}
    return Job(part="enhance", ckpt=ckpt, test_dir=test_set, against=against, way=way, **chosen)


def test_ways_to_enhance_are_counted_scored_and_compared(made: tuple[Path, Path, Path]) -> None:
    rows = dict(enhance.enhancement(enhancing(*made)))
    guided, inside, theirs = "w = 3", "w = 3 in [0.5, 0.7]", "published sampler"
    notes = {name: rows[name][0].note.partition(";")[0] for name in ("w = 1", guided, inside, theirs)}
    assert notes["w = 1"] == "5 evaluations, 5 passes"
    assert notes[guided] == "5 evaluations, 10 passes"
    assert notes[inside] == "5 evaluations, 6 passes", "of the times 1, 0.8, 0.6, 0.4, 0.2 one is inside"
    assert notes[theirs] == "60 evaluations, 60 passes"
    pairs = {f"{guided} / w = 1", f"{inside} / w = 1", f"{inside} / {guided}", f"w = 1 / {theirs}"}
    assert rows.keys() == notes.keys() | pairs
    for pair in pairs:
        first, second = pair.split(" / ")
        ratio, difference = rows[pair]
        factors = [rows[name][0].values for name in (first, second)]
        assert ratio.values == pytest.approx([a / b for a, b in zip(*factors, strict=True)])
        low, mean, high = difference.values
        assert low <= mean <= high
        assert mean == pytest.approx(rows[first][1].values[1] - rows[second][1].values[1], abs=1e-6)


def test_a_baseline_has_one_way(made: tuple[Path, Path, Path]) -> None:
    assert list(enhance.ways(enhancing(made[1], None, made[2]))[0]) == ["w = 1"]


def test_memory_is_that_of_one_way(made: tuple[Path, Path, Path]) -> None:
    job = enhancing(*made, way="w = 3")
    assert list(enhance.ways(job)[0]) == ["w = 3"]
    assert enhance.memory(job)[0].values[0] > 0


def test_the_published_sampler_wants_an_ouve_checkpoint(made: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UserError, match="is a bridge"):
        enhance.ways(enhancing(made[0], made[0], made[2]))


def test_the_command_prints_its_table() -> None:
    command = [sys.executable, "scripts/benchmark.py", "--quick", "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, "--parts", "forward"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for quantity in ("rate / bare convolution", "bare convolution, GFLOP/s", "peak memory, ours, MiB"):
        assert quantity in done.stdout
