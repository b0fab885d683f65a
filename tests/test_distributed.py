"""Training in two processes is training in one with both batches; evaluation loses no file and doubles none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import batch, tiny
from training_runs import assert_same, load

from sgmse.commands import train
from sgmse.data.loaders import ResumableSampler
from sgmse.evaluation import metrics
from sgmse.evaluation.metrics import MAIN
from sgmse.model.enhancer import Enhancer
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig
from sgmse.training.datamodule import build_datamodule
from sgmse.training.validation import enhance_item

SETTINGS = """--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --batch_size 2 --num_workers 0
--num_valid_items 4 --num_eval_files 3 --N 1 --warmup_steps 0 --lr 0.01 --device cpu --max_steps 3
--val_every_n_steps 3 --encoder sequence --cond_dim 16 --encoder_channels 2 --cross_attention_resolutions 128
--cond_drop_prob 0.5 --null_condition learned --infonce_weight 0.1 --band_level_weight 0.1""".split()
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder in which two processes have left what they did."""
    out = tmp_path_factory.mktemp("pair")
    of_torchrun = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    common = os.environ | of_torchrun | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, HERE / "one_of_several.py", out / "store", out, *SETTINGS, "--devices", "2"]
    processes = []
    for rank in "01":
        with (out / f"said_{rank}.txt").open("w") as said:
            environment = common | {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(subprocess.Popen(command, env=environment, cwd=out, stdout=said, stderr=said))
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join((out / f"said_{rank}.txt").read_text()[-2000:] for rank in "01")
    return out


def in_one_process(folder: Path, gradients: list[dict[str, torch.Tensor]]) -> None:
    """Train in this process on the batches of both, one after the other in each step, with the draws of each."""
    draw = NoiseCondScoreModel._generator

    def as_the_process_of_this_batch(self, step, batch_idx, rank, *key):
        return draw(self, step, 0, batch_idx, *key) if step < 2**40 else draw(self, step, batch_idx, rank, *key)

    def keys(self):
        return (first + i for first in range(0, self.keys_per_epoch, 4) for i in (0, 2, 1, 3))

    def note(self, optimizer):
        gradients.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgmse.diffusion.adaptive.NUM_REFERENCES", 8)
        patch.setattr(NoiseCondScoreModel, "_generator", as_the_process_of_this_batch)
        patch.setattr(NoiseCondScoreModel, "on_before_optimizer_step", note)
        patch.setattr(ResumableSampler, "__iter__", keys)
        arguments = [*SETTINGS, "--num_eval_files", "0", "--max_steps", "1", "--accumulate_grad_batches", "2"]
        patch.setattr(sys, "argv", ["train.py", *arguments, "--run_dir", str(folder)])
        train.main()


def test_the_gradients_of_a_step_are_those_of_one_process_with_both_batches(pair, tmp_path):
    found: list[dict[str, torch.Tensor]] = []
    in_one_process(tmp_path / "one", found)
    both = [torch.load(pair / f"gradients_0_{rank}.pt") for rank in "01"]
    assert both[0].keys() == both[1].keys() == found[0].keys()
    assert len(found[0]) > 20
    for name, gradient in found[0].items():
        assert torch.equal(both[0][name], both[1][name]), name
        torch.testing.assert_close(both[0][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_weights_and_averages_stay_equal_in_all_processes(pair):
    first, second = (torch.load(pair / f"weights_{rank}.pt") for rank in "01")
    saved = load(pair / "whole")
    for name, weight in first["raw"].items():
        assert torch.equal(weight, second["raw"][name]), name
        assert torch.equal(weight, saved["state_dict"][name]), name
    for name, weight in first["average"].items():
        assert torch.equal(weight, second["average"][name]), name
        assert torch.equal(weight, saved["average"]["weights"][name]), name


def test_three_validation_files_are_shared_by_two_processes_and_their_means_are_those_of_one(pair):
    done = {rank: [int(line) for line in (pair / f"files_{rank}.txt").read_text().split()] for rank in "01"}
    assert done == {"0": [0, 2], "1": [1]}
    settings = yaml.safe_load((pair / "whole" / "config.yaml").read_text())
    config, data = cli.take(ModelConfig, settings), cli.take(DataConfig, settings)
    files = build_datamodule(data, config, seed=0).valid_files
    assert len(files) == 3
    model = Enhancer.from_checkpoint(pair / "whole" / "checkpoints" / "last.ckpt", "cpu")
    rows = []
    for index in range(3):
        item = {name: value for name, value in files[index].items() if isinstance(value, torch.Tensor)}
        estimate = enhance_item(model, item, index, {"": 1.0})[""]
        scores = metrics.score(item["clean"].numpy(), estimate.numpy(), 16000)
        rows.append([scores[name] for name in MAIN])
    logged = pd.read_csv(pair / "whole" / "validation.csv").iloc[-1]
    for key, mean in zip(MAIN, np.nanmean(rows, axis=0), strict=True):
        assert logged[key] == pytest.approx(mean, rel=1e-4), key


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_they_go_on_exactly(pair):
    assert {(pair / f"codes_{rank}.txt").read_text() for rank in "01"} == {"0 85 0"}
    assert_same(load(pair / "stopped"), load(pair / "whole"))
    assert "after step 2" in (pair / "said_0.txt").read_text()


def test_the_processes_share_one_folder_and_one_of_them_speaks(pair):
    assert sorted(path.name for path in pair.iterdir() if path.is_dir()) == ["stopped", "whole"]
    assert "run: " in (pair / "said_0.txt").read_text()
    assert "run: " not in (pair / "said_1.txt").read_text()


EVERY_KIND = [
    {"encoder": "none"},
    {"cond_drop_prob": 1.0},
    {"cond_drop_prob": 0.0, "null_condition": "learned"},
    {"encoder": "sequence"},
    {"encoder": "sequence", "cross_attention_resolutions": [128], "cond_drop_prob": 1.0},
    {"infonce_weight": 0.1},
    {"band_level_weight": 0.1},
]


@pytest.mark.parametrize("settings", EVERY_KIND, ids=str)
def test_every_trained_parameter_has_a_gradient_so_that_no_process_waits_for_one(settings):
    """Also where every reference is dropped or nothing attends to the tokens: DDP need not search for unused ones."""
    model = tiny(TrainConfig(), **settings)
    model.log_dict = lambda *arguments, **options: None
    items = batch()
    condition = model.encode(items["reference"], items["reference_length"])
    auxiliary = model._auxiliary(items, condition)
    dropped = model._drop(condition, torch.Generator().manual_seed(0))
    loss = model.loss(items, dropped, torch.Generator().manual_seed(0))[0].mean()
    (loss + auxiliary).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
