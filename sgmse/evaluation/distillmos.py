"""DistillMOS: a small network that predicts how listeners rate speech (Stahl & Gamper 2025, arXiv 2502.05356).

The published package asks for a framework of large speech models, of which only two layers' definitions are used. Here
is the network alone, for the weights that lie in the package.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WINDOW, _HOP = 320, 160  # 20 ms and 10 ms
_BINS = _WINDOW // 2 + 1
_CHANNELS = (2, 64, 64, 128, 256, 256, 256)
_WIDTH, _HEADS, _LAYERS = 200, 8, 7
_FRAMES = 384  # of a segment, at the end of the convolutions
SEGMENT = 2 * _FRAMES * _HOP  # samples, 7.68 s
# beginnings of the published names, the first that fits counts, and of ours
_NAMES = {
    "cnn.cnn.": "cnn.",
    "transformer_pool_attn.transformer.position_encoding.pe": "positions",
    "transformer_pool_attn.transformer.": "",
    "transformer_pool_attn.pool.": "",
    "transformer_pool_attn.": "",
}


class DistillMOS(nn.Module):
    """Segments of speech [B, SEGMENT] at 16 kHz → predicted mean opinion scores [B], between 1 and 5."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        bins, last = _BINS, len(_CHANNELS) - 2
        for place, (channels, more) in enumerate(pairwise(_CHANNELS)):
            stride = (2 if place else 1, 2 if place == last else 1)  # over frequency and over time
            layers += [nn.Conv2d(channels, more, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
            bins = (bins - 3) // stride[0] + 1
        self.cnn = nn.Sequential(*layers)
        width = _CHANNELS[-1] * bins
        self.norm_input, self.norm, self.norm_trans = (nn.BatchNorm1d(size) for size in (width, width, _WIDTH))
        self.linear_proj = nn.Linear(width, _WIDTH)
        self.register_buffer("positions", torch.zeros(1, _FRAMES, _WIDTH))
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.linear1, self.linear2 = nn.Linear(_WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, 1)  # attention over time
        self.linear3 = nn.Linear(_WIDTH, 1)

    def forward(self, segments: Tensor) -> Tensor:
        segments = segments / (segments.abs().amax(dim=1, keepdim=True) + 1e-8)
        hidden = self.cnn(_compressed_spectrogram(segments)).flatten(1, 2)  # [B, channels * bins, T]
        hidden = self.norm(self.norm_input(hidden)).mT
        hidden = self.transformer_encoder(self.linear_proj(hidden) + self.positions)
        hidden = self.norm_trans(hidden.mT).mT
        attention = self.linear2(F.relu(self.linear1(hidden))).softmax(dim=1)
        return 1 + 4 * self.linear3((attention * hidden).sum(dim=1)).sigmoid()[:, 0]


def _compressed_spectrogram(waveform: Tensor) -> Tensor:
    """[B, N] → real and imaginary parts [B, 2, F, T] of a spectrogram with magnitudes to the power of 0.3."""
    margin = (_WINDOW - _HOP) // 2
    window = torch.hann_window(_WINDOW, device=waveform.device)
    padded = F.pad(waveform, (margin, margin), mode="reflect")
    spectrum = torch.stft(padded, _WINDOW, _HOP, window=window, center=False, return_complex=True)
    spectrum = spectrum * spectrum.abs().clamp_min(1e-12) ** (0.3 - 1)
    return torch.stack([spectrum.real, spectrum.imag], dim=1)


def load(path: Path) -> DistillMOS:
    """The network in evaluation mode with the weights of a published file."""
    stored = torch.load(path, map_location="cpu", weights_only=True)["model"]
    network = DistillMOS()
    network.load_state_dict({_own_name(name): tensor for name, tensor in stored.items()})
    return network.eval()


def _own_name(name: str) -> str:
    prefix = next(prefix for prefix in _NAMES if name.startswith(prefix))
    return _NAMES[prefix] + name.removeprefix(prefix)
