from sgmse.model.score_model import NoiseCondScoreModel

__all__ = ["NoiseCondScoreModel"]
