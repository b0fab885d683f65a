"""What the benchmark measures (a forward pass, a training step) and its tools: operations, seconds, ratios, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sgmse.diffusion.conditioning import Condition
from sgmse.model.optimisation import AveragedWeights
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp
from sgmse.settings.config import ModelConfig

Call = Callable[[], object]
Clock = Callable[[], float]
Inputs = tuple[Tensor | Condition, ...]
BINS, BARE_CHANNELS = 256, 128
MIB = 2**20


class Row(NamedTuple):
    """One line of the table: a quantity, measured once per round."""

    quantity: str
    values: list[float]
    note: str = ""


def network_inputs(crops: int, frames: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, y: complex [B, 1, F, T], t [B]."""
    x_t, y = torch.randn(2, crops, 1, BINS, frames, dtype=torch.complex64, device=device)
    return x_t, y, torch.full((crops,), 0.5, device=device)


def conditioned_inputs(crops: int, frames: int, device: str) -> Inputs:
    """Those of the network, and for each crop the condition of a reference that fills all tokens."""
    sizes = ModelConfig()
    tokens = torch.randn(crops, sizes.num_tokens, sizes.cond_dim, device=device)
    mask = torch.ones(crops, sizes.num_tokens, dtype=torch.bool, device=device)
    condition = Condition(tokens.mean(dim=1), tokens, mask)
    return (*network_inputs(crops, frames, device), condition)


def conditioned_network(nf: int, resolutions: tuple[int, ...]) -> NCSNpp:
    """The network at its usual size that knows of a reference, with cross-attention at these nominal resolutions."""
    sizes = ModelConfig()
    shape = (nf, tuple(sizes.ch_mult), sizes.num_res_blocks, sizes.frequency_fold, sizes.cond_dim)
    return NCSNpp(VARIANTS[sizes.backbone], *shape, cross_attention_resolutions=resolutions)


def bare_convolution(crops: int, frames: int, device: str) -> tuple[nn.Conv2d, tuple[Tensor]]:
    """A 3×3 convolution, and images of as many pixels as the network's input has bins and frames."""
    layer = nn.Conv2d(BARE_CHANNELS, BARE_CHANNELS, 3, padding=1, device=device)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(crops, BARE_CHANNELS, BINS, frames, device=device)
    return layer, (images.contiguous(memory_format=torch.channels_last),)


def forward_pass(network: nn.Module, inputs: Inputs, precision: str) -> Callable[[], Tensor]:
    """One pass without gradient."""

    @torch.no_grad()
    def call() -> Tensor:
        return _output(network, inputs, precision)

    return call


def there_and_back(layer: nn.Module, inputs: tuple[Tensor], precision: str) -> Call:
    """Forward, and backward of the mean square to the weights and to the input."""
    images = inputs[0].requires_grad_()

    def call() -> None:
        layer.zero_grad()
        images.grad = None
        _output(layer, inputs, precision).square().mean().backward()

    return call


def training_step(network: nn.Module, inputs: Inputs, precision: str) -> Call:
    """Forward, backward of the mean square of the complex output, Adam, averaged weights."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    average = AveragedWeights(network, decay=0.999)

    def call() -> None:
        optimizer.zero_grad()
        torch.view_as_real(_output(network, inputs, precision)).square().mean().backward()
        optimizer.step()
        average.update(network)

    return call


STEPS: dict[str, Callable[[nn.Module, Inputs, str], Call]] = {
    "forward": forward_pass,
    "train": training_step,
}


def _output(network: nn.Module, inputs: Inputs, precision: str) -> Tensor:
    first = inputs[0]
    assert isinstance(first, Tensor)
    with torch.autocast(first.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        return network(*inputs)


def operations(call: Call) -> float:
    """Floating-point operations of one call: two per multiplication of convolutions and matrix products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
        call()
    return float(counter.get_total_flops())


def clock(device: str) -> Clock:
    """Seconds: of the cores that this process used, which others hardly change; on CUDA of the clock, read when the
    device has finished its work.
    """
    if device != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def set_arithmetic(precision: str) -> None:
    """32: full precision everywhere, also on CUDA; otherwise matrix products and convolutions there may use TF32."""
    torch.set_float32_matmul_precision("highest" if precision == "32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "32"
    torch.backends.cudnn.benchmark = True


def time_in_turns(
    calls: dict[str, Call], rounds: int, now: Callable[[], float], min_seconds: float
) -> dict[str, list[float]]:
    """Seconds per call of each thing in each round; within a round they take turns.

    Each warms up with two calls, of which the second says how often it is repeated in a round to last `min_seconds`.
    """

    def seconds(call: Call, times: int) -> float:
        start = now()
        for _ in range(times):
            call()
        return (now() - start) / times

    times = {}
    for name, call in calls.items():
        call()
        times[name] = max(1, round(min_seconds / max(seconds(call, 1), 1e-6)))
    return take_turns({name: partial(seconds, call, times[name]) for name, call in calls.items()}, rounds)


def take_turns(measurements: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each measurement returns in each round; within a round they take turns."""
    measured: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measurement in measurements.items():
            measured[name].append(measurement())
    return measured


def ratios(numerators: list[float], denominators: list[float]) -> list[float]:
    """Round by round, so that only what was measured seconds apart is compared."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def audio_rates(arrivals: list[float], batch_s: float, batches: int) -> list[float]:
    """Audio seconds per second between every `batches`-th of the arrival times; a batch holds `batch_s` seconds."""
    return [batches * batch_s / (end - start) for start, end in pairwise(arrivals[::batches])]


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Largest resident memory so far of this process (or of its finished children) in MiB."""
    return resource.getrusage(who).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def busy_rows(call: Call, device: str) -> list[Row]:
    """On CUDA the share of a call's time in which the device computes; a low one says that it waits for the host."""
    if device != "cuda":
        return []
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    busy = sum(event.self_device_time_total for event in found.key_averages()) / 1e6
    return [Row("share of time the device computes", [busy / seconds])]


def memory_rows(call: Call, name: str, device: str) -> list[Row]:
    """Peaks of this process and of the device after two calls; Adam's state exists from the second step on."""
    for _ in range(2):
        call()
    rows = [Row(f"peak memory, {name}, MiB", [peak_mib()])]
    if device == "cuda":
        rows.append(Row(f"peak on device, {name}, MiB", [torch.cuda.max_memory_allocated() / MIB]))
    return rows


def excess_rows(rows: list[Row], base: list[Row]) -> list[Row]:
    """What each row has more than the same row of `base`, round by round."""
    return [
        Row(f"more {row.quantity}", [a - b for a, b in zip(row.values, other.values, strict=True)])
        for row, other in zip(rows, base, strict=True)
    ]


def speed_rows(seconds: dict[str, list[float]], flops: float, bare_flops: float, crops: int, note: str) -> list[Row]:
    """From seconds per call, floating-point operations per call and crops per call."""
    rate, bare_rate = [flops / s / 1e9 for s in seconds["ours"]], [bare_flops / s / 1e9 for s in seconds["bare"]]
    rows = [
        Row("rate / bare convolution", ratios(rate, bare_rate)),
        Row("rate, GFLOP/s", rate, f"{flops / 1e9:.4g} GFLOP a call"),
        Row("bare convolution, GFLOP/s", bare_rate, f"{bare_flops / 1e9:.4g} GFLOP a call"),
        Row("crops per second", [crops / s for s in seconds["ours"]]),
        Row("time, conditioned / without", ratios(seconds["conditioned"], seconds["ours"])),
    ]
    if "published" in seconds:
        rows.append(Row("speed, ours / published", ratios(seconds["published"], seconds["ours"]), note))
    return rows
