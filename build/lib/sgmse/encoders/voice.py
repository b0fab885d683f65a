"""d-vectors: a network that tells talkers apart (Wan et al. 2018, GE2E, arXiv 1710.10467), in Resemblyzer's weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from sgmse.encoders.base import EncoderCard
from sgmse.encoders.pretrained import PretrainedNoiseEncoder, Tower
from sgmse.encoders.weights import VOICE

_WINDOW, _HOP, _BANDS = 400, 160, 40  # 25 ms and 10 ms
_PARTIAL = 160  # frames that the network hears at once, 1.6 s
_STEP = 77  # frames between the begins of partials: 1.3 of them a second
_LEVEL = 10 ** (-30 / 20)  # RMS that the network was trained at, for a full scale of 1


class DVectorTower(Tower):
    """Waveform → mel powers → three LSTM layers → a d-vector of 256 numbers for each partial of 1.6 s.

    The embedding is the mean of the partials, of norm 1; the partials are the frames.
    """

    rate = 16000
    clip_samples = 64000
    whole_repeats = False
    embedding_size = 256
    frame_size = 256
    num_frames = 4  # partials of a clip; what a fifth one would cover is less than three quarters of it

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_BANDS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, self.embedding_size)
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", torch.hann_window(_WINDOW))
        bands = torchaudio.functional.melscale_fbanks(
            _WINDOW // 2 + 1, 0.0, self.rate / 2, _BANDS, self.rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", bands)  # [bins, bands]

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        rms = clip.square().mean(dim=-1, keepdim=True).sqrt()
        clip = clip * (_LEVEL / rms.clamp_min(1e-8))
        spectrum = torch.stft(clip, _WINDOW, _HOP, window=self.window, pad_mode="constant", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # not its logarithm: the level matters
        mel = power.mT @ self.filters  # [B, T, bands]
        partials = mel.unfold(1, _PARTIAL, _STEP)[:, : self.num_frames].mT  # [B, 4, 160, bands]
        vectors = self._embed(partials.flatten(0, 1)).unflatten(0, partials.shape[:2])
        return F.normalize(vectors.mean(dim=1), dim=-1), vectors

    def _embed(self, mel: Tensor) -> Tensor:
        """[N, 160, bands] → [N, 256] of norm 1."""
        hidden = self.lstm(mel)[1][0][-1]
        return F.normalize(F.relu(self.linear(hidden)), dim=-1)

    @staticmethod
    def published_state(content: dict[str, Any]) -> dict[str, Tensor]:
        own = DVectorTower()
        stored = {name: tensor for name, tensor in content["model_state"].items() if not name.startswith("similarity")}
        return stored | {"window": own.window, "filters": own.filters}


class VoiceEncoder(PretrainedNoiseEncoder):
    """The d-vector of the reference, with its level beside it: for noise that is another talker."""

    published = VOICE
    tower_class = DVectorTower
    card = EncoderCard(
        input_rate="16 kHz",
        embedding="256, of norm 1, with the level in 8 bands; partials of 1.6 s",
        parameters="1.8 M",
        weights="inside the Python package resemblyzer",
        licence="Apache-2.0",
        good_for="another talker as the noise: it tells voices apart",
        gives_tokens=True,
        pretrained=True,
    )
