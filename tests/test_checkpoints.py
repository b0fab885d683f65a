"""Published checkpoints enhance as published; nothing in a pickle is run; other files are refused in a sentence."""

import os
from pathlib import Path

import pytest
import torch
from golden_numbers import GOLDEN, as_complex, golden, relative_error
from tiny import enhanced, tiny

from sgmse.common.errors import UserError
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.networks.published import rename


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    ("name", "tolerance"), [("ncsnpp_ouve", 1e-3), ("ncsnpp_v2_ouve", 1e-3), ("ncsnpp_v2_sbve", 5e-3)]
)
def test_published_checkpoint_enhances_as_the_published_code(name, tolerance):
    loaded, data = Enhancer.from_checkpoint(GOLDEN / f"official_{name}.ckpt", "cpu"), golden(f"official_{name}.enhance")
    draws = iter(as_complex(data["noise"])) if "noise" in data else iter(())
    result = enhanced(loaded, data["noisy"], None, lambda like: next(draws))
    assert loaded.published
    assert loaded.averaged
    assert result.nfe == (3 if "sbve" in name else 6)
    assert relative_error(result.waveform, data["enhanced"]) < tolerance


def test_raw_weights_of_the_published_checkpoint_would_not_do():
    """The average is what is used: with the raw weights the result differs by more than the tolerance."""
    path, data = GOLDEN / "official_ncsnpp_ouve.ckpt", golden("official_ncsnpp_ouve.enhance")
    model, raw = Enhancer.from_checkpoint(path, "cpu"), checkpoints.read(path)["state_dict"]
    weights = {name.removeprefix("dnn."): weight for name, weight in raw.items() if "dnn" in name}
    model.backbone.load_state_dict(rename(model.backbone, weights))
    draws = iter(as_complex(data["noise"]))
    assert relative_error(enhanced(model, data["noisy"], None, lambda _: next(draws)).waveform, data["enhanced"]) > 1e-2


def test_a_pickled_class_path_is_never_called(tmp_path):
    trap = tmp_path / "made_by_the_pickle"
    content = {"state_dict": {}, "hyper_parameters": {"data_module_cls": Bomb(trap)}}
    torch.save(content, tmp_path / "bomb.ckpt")
    with pytest.raises(UserError, match="another model"):
        Enhancer.from_checkpoint(tmp_path / "bomb.ckpt", "cpu")
    assert not trap.exists()


def wrong_checkpoint(path: Path, how: str) -> None:
    """Put at `path` what cannot be loaded."""
    published = GOLDEN / "official_ncsnpp_ouve.ckpt"
    if how == "folder":
        path.mkdir()
    elif how == "truncated":
        path.write_bytes(published.read_bytes()[: published.stat().st_size // 2])
    elif how == "other shapes":
        content = checkpoints.read(published)
        shapes = {**content["hyper_parameters"], "nf": 16, "data_module_cls": None}
        torch.save(content | {"hyper_parameters": shapes}, path)
    elif how == "diverged":
        model = tiny()
        weights = {name: torch.full_like(weight, torch.nan) for name, weight in model.state_dict().items()}
        torch.save({"state_dict": weights, "model_settings": model.settings}, path)
    elif how != "absent":
        path.write_bytes({"empty": b"", "text": b"not a checkpoint", "pickle": b"\x80\x02."}[how])


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("absent", "no such checkpoint"),
        ("folder", "is a folder"),
        ("empty", "is no checkpoint"),
        ("text", "is no checkpoint"),
        ("pickle", "is no checkpoint"),
        ("truncated", "is no checkpoint"),
        ("other shapes", "does not fit the model"),
        ("diverged", "diverged"),
    ],
)
def test_what_is_no_checkpoint_for_use_is_refused(tmp_path, how, problem):
    path = tmp_path / "x.ckpt"
    wrong_checkpoint(path, how)
    with pytest.raises(UserError, match=rf"x\.ckpt: .*{problem}"):
        Enhancer.from_checkpoint(path, "cpu")
