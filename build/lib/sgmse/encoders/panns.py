"""PANNs: Cnn14, trained to tag AudioSet (Kong et al. 2020, arXiv 1912.10211)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sgmse.encoders.base import EncoderCard
from sgmse.encoders.pretrained import PretrainedNoiseEncoder, Tower, module_of
from sgmse.encoders.weights import PANNS

INSTALL = "panns-inference==0.1.1"


class Cnn14Tower(Tower):
    """Cnn14 from waveform to log-mel to the layer before its tags.

    The frames [B, 6, 2048] are those of the last convolutions, before they are pooled over time.
    """

    rate = 32000
    clip_samples = 64000
    whole_repeats = False
    embedding_size = 2048
    frame_size = 2048
    num_frames = 6

    def __init__(self) -> None:
        super().__init__()
        models = module_of("panns_inference", "", "models", INSTALL)
        self.cnn: nn.Module = models.Cnn14(
            sample_rate=self.rate, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000, classes_num=527
        )
        self.cnn.spec_augmenter = nn.Identity()
        assert isinstance(self.cnn.fc_audioset, nn.Linear)
        self.cnn.fc_audioset.requires_grad_(False)  # it tags

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        last: list[Tensor] = []
        assert isinstance(self.cnn.conv_block6, nn.Module)
        hook = self.cnn.conv_block6.register_forward_hook(lambda module, arguments, output: last.append(output))
        try:
            embedding = self.cnn(clip)["embedding"]
        finally:
            hook.remove()
        return embedding, last[0].mean(dim=3).transpose(1, 2)

    @staticmethod
    def published_state(content: dict[str, Any]) -> dict[str, Tensor]:
        return {f"cnn.{name}": tensor for name, tensor in content["model"].items()}


class PANNsNoiseEncoder(PretrainedNoiseEncoder):
    """PANNs' Cnn14 around the reference, with its level beside it."""

    published = PANNS
    tower_class = Cnn14Tower
    card = EncoderCard(
        input_rate="32 kHz",
        embedding="2048, with the level in 8 bands; frames of 0.32 s",
        parameters="81.0 M",
        weights="Kong et al., Cnn14_mAP=0.431.pth",
        licence="CC BY 4.0 (code MIT)",
        good_for="everyday sounds of AudioSet's 527 kinds",
        gives_tokens=True,
        pretrained=True,
    )
