"""Published checkpoints enhance as published; nothing in a pickle is run; other files are refused in a sentence."""

import os
from pathlib import Path

import pytest
import torch
from golden_numbers import GOLDEN, as_complex, golden, relative_error
from tiny import enhanced, tiny

from sgmse.common.errors import UserError
from sgmse.model.enhancer import Enhancer


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
    loaded, data = (
        Enhancer.from_checkpoint(GOLDEN / "official_ncsnpp_ouve.ckpt", "cpu"),
        golden("official_ncsnpp_ouve.enhance"),
    )
    from sgmse.model.checkpoints import read
    from sgmse.networks.published import rename

    raw = read(GOLDEN / "official_ncsnpp_ouve.ckpt")["state_dict"]
    backbone = loaded.backbone
    backbone.load_state_dict(rename(backbone, {k.removeprefix("dnn."): v for k, v in raw.items() if "dnn" in k}))
    draws = iter(as_complex(data["noise"]))
    assert (
        relative_error(enhanced(loaded, data["noisy"], None, lambda _: next(draws)).waveform, data["enhanced"]) > 1e-2
    )


def test_a_pickled_class_path_is_never_called(tmp_path):
    trap = tmp_path / "made_by_the_pickle"
    content = {"state_dict": {}, "hyper_parameters": {"data_module_cls": Bomb(trap)}}
    torch.save(content, tmp_path / "bomb.ckpt")
    with pytest.raises(UserError, match="another model"):
        Enhancer.from_checkpoint(tmp_path / "bomb.ckpt", "cpu")
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.ckpt: is no checkpoint"):
        Enhancer.from_checkpoint(path, "cpu")


def test_a_missing_checkpoint_and_a_truncated_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        Enhancer.from_checkpoint(tmp_path / "absent.ckpt", "cpu")
    whole = Path(GOLDEN / "official_ncsnpp_ouve.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no checkpoint"):
        Enhancer.from_checkpoint(tmp_path / "half.ckpt", "cpu")


def test_a_checkpoint_with_other_shapes_is_refused(tmp_path):
    from sgmse.model.checkpoints import _DataOnlyPickle

    content = torch.load(GOLDEN / "official_ncsnpp_ouve.ckpt", weights_only=False, pickle_module=_DataOnlyPickle)
    content["hyper_parameters"] = {**content["hyper_parameters"], "nf": 16, "data_module_cls": None}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="does not fit the model"):
        Enhancer.from_checkpoint(tmp_path / "other.ckpt", "cpu")


def test_a_folder_and_weights_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        Enhancer.from_checkpoint(tmp_path, "cpu")
    model = tiny()
    weights = model.state_dict()
    weights["backbone.input_conv.bias"] = torch.full_like(weights["backbone.input_conv.bias"], torch.nan)
    torch.save({"state_dict": weights, "model_settings": model.settings}, tmp_path / "diverged.ckpt")
    with pytest.raises(UserError, match="diverged"):
        Enhancer.from_checkpoint(tmp_path / "diverged.ckpt", "cpu")
