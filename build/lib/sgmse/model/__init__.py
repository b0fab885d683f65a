"""The model: `Enhancer` turns noisy waveforms into enhanced ones, `NoiseCondScoreModel` is one that can be trained.

Both are imported when they are first used, so that enhancing does not wait for Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgmse.model.enhancer import Enhancer
    from sgmse.model.score_model import NoiseCondScoreModel

__all__ = ["Enhancer", "NoiseCondScoreModel"]


def __getattr__(name: str) -> Any:
    if name == "Enhancer":
        from sgmse.model.enhancer import Enhancer

        return Enhancer
    if name == "NoiseCondScoreModel":
        from sgmse.model.score_model import NoiseCondScoreModel

        return NoiseCondScoreModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
