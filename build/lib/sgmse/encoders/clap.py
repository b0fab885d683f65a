"""CLAP: audio in the space of its descriptions (Wu et al. 2023, arXiv 2211.06687)."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sgmse.encoders.base import EncoderCard
from sgmse.encoders.pretrained import PretrainedNoiseEncoder, Tower, module_of, package_folder
from sgmse.encoders.weights import CLAP

INSTALL = "laion-clap==1.1.7 torchvision"  # laion-clap imports torchvision without requiring it


class CLAPTower(Tower):
    """The audio half of CLAP: HTSAT-tiny, from waveform to log-mel to transformer, and the projection after it.

    The embedding [B, 512] has norm 1, the frames [B, 32, 768] are those of its last layer, a mean over frequency each.
    """

    rate = 48000
    clip_samples = 480000
    whole_repeats = True
    embedding_size = 512
    frame_size = 768
    num_frames = 32

    def __init__(self) -> None:
        super().__init__()
        htsat = module_of("laion_clap", "clap_module", "htsat", INSTALL)
        config = package_folder("laion_clap", INSTALL) / "clap_module" / "model_configs" / "HTSAT-tiny.json"
        settings = SimpleNamespace(**json.loads(config.read_text(encoding="utf-8"))["audio_cfg"])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")  # the package's to mend
            self.audio_branch: nn.Module = htsat.create_htsat_model(settings)
        self.audio_projection = nn.Sequential(nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 512))
        self.audio_branch.spec_augmenter = nn.Identity()
        for unused in (self.audio_branch.tscam_conv, self.audio_branch.head):  # they classify
            assert isinstance(unused, nn.Module)
            unused.requires_grad_(False)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        output = self.audio_branch({"waveform": clip})
        embedding = F.normalize(self.audio_projection(output["embedding"]), dim=-1)
        fine = output["fine_grained_embedding"]  # each frame 32 times
        return embedding, fine[:, :: fine.shape[1] // self.num_frames]

    @staticmethod
    def published_state(content: dict[str, Any]) -> dict[str, Tensor]:
        named = {name.removeprefix("module."): tensor for name, tensor in content["state_dict"].items()}
        return {name: t for name, t in named.items() if name.startswith(("audio_branch.", "audio_projection."))}


class CLAPNoiseEncoder(PretrainedNoiseEncoder):
    """CLAP's audio half around the reference, with its level beside it."""

    published = CLAP
    tower_class = CLAPTower
    card = EncoderCard(
        input_rate="48 kHz",
        embedding="512, of norm 1, with the level in 8 bands; frames of 0.31 s",
        parameters="28.7 M",
        weights="LAION, 630k-audioset-best.pt",
        licence="CC0-1.0",
        good_for="noise that words can name: what makes it, and where",
        gives_tokens=True,
        pretrained=True,
    )
