"""What networks hear in enhanced speech: predicted opinions of listeners, which need no clean file, and the voice.

The weights lie in Python packages, which are not imported: they ask for libraries that nothing here needs. Waveforms
are [N] at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sgmse.common.errors import UserError

_RATE = 16000
_DNSMOS_S = 9.01  # that its networks hear at once
_WINDOW, _HOP, _BANDS = 321, 160, 120  # of the spectrogram for P.808
_RANGE_DB = 80.0
# raw outputs of the network for P.835 → opinions, by polynomials of the second degree
_CURVES = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
DNSMOS = (*_CURVES, "p808")
# what each word of --metrics needs: modules and the command that installs them
EXTRAS = {
    "dnsmos": (("speechmos", "onnxruntime"), "pip install onnxruntime && pip install --no-deps speechmos==0.0.1.1"),
    "distillmos": (("distillmos",), "pip install --no-deps distillmos==0.9.1"),
    "speaker_similarity": (("resemblyzer",), "pip install --no-deps resemblyzer==0.1.4"),
}


def check_extra(word: str) -> None:
    """Raise `UserError` where something is not installed that the metrics of `word` need."""
    modules, command = EXTRAS.get(word, ((), ""))
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(f"--metrics {word}: the package {missing[0]} is missing; run `{command}`")


def dnsmos(estimate: np.ndarray) -> tuple[float, float, float, float]:
    """Speech, background and overall quality as in ITU-T P.835 (Reddy et al. 2022, arXiv 2110.01763), and overall
    quality as in P.808 (Reddy et al. 2021, arXiv 2010.15258), each on the scale from 1 to 5.

    Short recordings are repeated; of long ones the stretches of 9 s are averaged that begin at full seconds.
    """
    while len(estimate) < _DNSMOS_S * _RATE:
        estimate = np.concatenate([estimate, estimate])
    opinion, crowd = _dnsmos_networks()
    found = []
    for second in range(int(len(estimate) // _RATE - _DNSMOS_S) + 1):
        stretch = estimate[second * _RATE : int((second + _DNSMOS_S) * _RATE)].astype(np.float32)
        if len(stretch) < int(_DNSMOS_S * _RATE):
            # by the rounding of floats those that begin at 7 to 23 s lack a sample; published scores leave them out
            continue
        raw = opinion.run(None, {"input_1": stretch[None]})[0][0]
        curves = [np.polyval(curve, value) for curve, value in zip(_CURVES.values(), raw, strict=True)]
        found.append([*curves, crowd.run(None, {"input_1": _log_mel(stretch[:-_HOP])[None]})[0].item()])
    sig, bak, ovrl, p808 = np.mean(found, axis=0).tolist()
    return sig, bak, ovrl, p808


@cache
def _dnsmos_networks() -> tuple[Any, Any]:
    """The networks for P.835 and for P.808."""
    check_extra("dnsmos")
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # files are scored side by side
    folder = _package_folder("speechmos") / "dnsmos_models"
    opinion, crowd = (
        runtime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    )
    return opinion, crowd


def _log_mel(waveform: np.ndarray) -> np.ndarray:
    """[N] → [T, bands]: mel powers in dB below the loudest, 0 at half of `_RANGE_DB` and ±1 at its ends."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)  # Hann, periodic
    padded = np.pad(waveform.astype(np.float64), _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * window
    powers = np.abs(np.fft.rfft(frames)) ** 2 @ _mel_filters()
    decibels = 10 * np.log10(np.maximum(powers, 1e-10))
    below = np.maximum(decibels - decibels.max(), -_RANGE_DB)
    scaled: np.ndarray = (below / (_RANGE_DB / 2) + 1).astype(np.float32)
    return scaled


@cache
def _mel_filters() -> np.ndarray:
    """[bins, bands]: triangles of equal area on Slaney's scale, linear up to 1 kHz (mel 15) and logarithmic above.

    torchaudio's filters take it that the last bin lies at half the rate; that of an odd window lies below.
    """
    octaves = np.log(6.4) / 27  # of the frequency, per mel
    mels = np.linspace(0, 15 + np.log(_RATE / 2 / 1000) / octaves, _BANDS + 2)
    corners = np.where(mels < 15, mels * 1000 / 15, 1000 * np.exp(octaves * (mels - 15)))
    bins = np.fft.rfftfreq(_WINDOW, 1 / _RATE)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    triangles = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    filters: np.ndarray = np.maximum(triangles, 0) * 2 / (high - low)
    return filters


def distillmos(estimate: np.ndarray) -> float:
    """The opinion that DistillMOS predicts, between 1 and 5; the level of the recording does not matter."""
    import torch

    from sgmse.evaluation.distillmos import SEGMENT

    padded = np.pad(estimate, (0, max(0, SEGMENT - len(estimate))))
    with torch.inference_mode():  # segment by segment: memory does not depend on the length
        found = [_distillmos_network()(torch.from_numpy(segment[None])).item() for segment in _cut(padded, SEGMENT)]
    return float(np.mean(found))


@cache
def _distillmos_network() -> Any:
    from sgmse.evaluation.distillmos import load

    check_extra("distillmos")
    return load(_package_folder("distillmos") / "weights" / "distill_mos_v7.pt")


def speaker_similarity(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Cosine between the d-vectors of two recordings (`encoders/voice.py`): 1 for the same voice."""
    one, other = (_d_vector(waveform) for waveform in (clean, estimate))
    return float(one @ other)


def _d_vector(waveform: np.ndarray) -> np.ndarray:
    """[256] of norm 1: the mean over the clips of a recording; a short one is repeated."""
    import torch

    tower = _voice_tower()
    repeated = np.resize(waveform, max(len(waveform), tower.clip_samples))
    with torch.inference_mode():
        mean = torch.cat([tower(torch.from_numpy(c[None]))[0] for c in _cut(repeated, tower.clip_samples)]).mean(dim=0)
    vector: np.ndarray = (mean / mean.norm()).numpy()
    return vector


@cache
def _voice_tower() -> Any:
    from sgmse.encoders.voice import DVectorTower
    from sgmse.encoders.weights import VOICE, read

    check_extra("speaker_similarity")
    tower = DVectorTower()
    tower.load_state_dict(tower.published_state(read(VOICE.default_path())))
    return tower.eval()


def _cut(waveform: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Stretches of so many samples that begin at most a second apart and cover all of the recording."""
    spare = len(waveform) - samples
    for begin in (np.linspace(0, 1, -(-spare // _RATE) + 1) * spare).astype(int):
        yield waveform[begin : begin + samples].astype(np.float32)


def _package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
