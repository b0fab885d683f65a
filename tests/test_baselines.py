"""Strong enhancers of others: their own weights, on the embedded test set."""

import numpy as np
import pytest
import soundfile
from baseline_enhance import main
from commands import call, refusal
from short_set import short_set

from sgmse.data import audio
from sgmse.enhancement.lookup import open_test_set
from sgmse.evaluation import baselines
from sgmse.evaluation.baselines import BASELINES, load_baseline
from sgmse.evaluation.metrics import si_sdr


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean speech at 16 kHz."""
    folder = short_set(tmp_path_factory.mktemp("set"), 2, 2.0)
    noisy, clean = (audio.read(folder / kind / "001.wav", 16000) for kind in ("noisy", "clean"))
    return noisy, clean


@pytest.mark.parametrize("name", BASELINES)
def test_it_enhances_without_delay_whatever_the_rate(name, pair):
    noisy, clean = pair
    enhance = load_baseline(name)
    enhanced = enhance(noisy, 16000)
    assert enhanced.shape == noisy.shape
    assert si_sdr(clean, enhanced) > si_sdr(clean, noisy) + 2
    lags = [float(np.dot(np.roll(enhanced, lag), clean)) for lag in range(-20, 21)]
    assert lags.index(max(lags)) == 20
    at_48k = enhance(audio.resample(noisy, 16000, 48000), 48000)
    assert at_48k.shape == (3 * len(noisy),)
    assert si_sdr(enhanced, audio.resample(at_48k, 48000, 16000)) > 20


@pytest.mark.parametrize("name", BASELINES)
def test_files_share_no_state(name, pair):
    enhance = load_baseline(name)
    first = enhance(pair[0], 16000)
    assert np.array_equal(enhance(pair[0], 16000), first)


def test_the_command_keeps_names_rates_and_channels_and_goes_on(tmp_path, capsys, pair):
    noisy = np.stack([pair[0], 0.5 * pair[0]])
    (tmp_path / "set/noisy/a").mkdir(parents=True)
    soundfile.write(tmp_path / "set/noisy/a/x.flac", noisy.T, 16000)
    soundfile.write(tmp_path / "set/noisy/y.wav", pair[0][:100], 16000)
    assert "2 of 2" in call(main, capsys, "dtln", tmp_path / "set", tmp_path / "out")
    info = audio.info(tmp_path / "out/a/x.flac")
    assert (info.sample_rate, info.num_frames, info.channels) == (16000, noisy.shape[1], 2)
    (tmp_path / "out/y.wav").unlink()
    assert "1 of 2" in call(main, capsys, "dtln", tmp_path / "set", tmp_path / "out")
    assert audio.info(tmp_path / "out/y.wav").num_frames == 100
    soundfile.write(tmp_path / "set/noisy/y.wav", pair[0][100:300], 16000)
    assert "1 of 2" in call(main, capsys, "dtln", tmp_path / "set", tmp_path / "out")
    assert audio.info(tmp_path / "out/y.wav").num_frames == 200


def test_results_of_another_enhancer_are_not_taken_for_its_own(tmp_path, capsys, pair):
    soundfile.write(tmp_path / "x.wav", pair[0], 16000)
    call(main, capsys, "dtln", tmp_path, tmp_path / "out")
    assert "nothing says that" in refusal(main, capsys, "dfn3", tmp_path, tmp_path / "out")
    (tmp_path / "out/results.sqlite").unlink()
    assert "nothing says that" in refusal(main, capsys, "dtln", tmp_path, tmp_path / "out")


def test_what_it_cannot_do_is_refused(tmp_path, capsys, pair, monkeypatch):
    soundfile.write(tmp_path / "x.wav", pair[0], 16000)
    assert "noisy" in refusal(main, capsys, "dtln", tmp_path, tmp_path)
    assert "dtln" in refusal(main, capsys, "dtnl", tmp_path, tmp_path / "out")
    assert "absent" in refusal(main, capsys, "dtln", tmp_path / "absent", tmp_path / "out")
    for name in BASELINES:
        monkeypatch.setattr(baselines, "import_module", _nothing_is_installed)
        load_baseline.cache_clear()
        assert "pip install" in refusal(main, capsys, name, tmp_path, tmp_path / "out")


def test_what_dtln_takes_away_can_be_the_reference(tmp_path, pair):
    noisy, clean = pair
    (tmp_path / "noisy").mkdir()
    soundfile.write(tmp_path / "noisy/x.wav", noisy, 16000, subtype="FLOAT")
    test_set = open_test_set(tmp_path, "dtln")
    found = test_set.reference(test_set.items[0], "dtln", 16000)
    assert np.allclose(found.waveform, noisy - load_baseline("dtln")(noisy, 16000), atol=1e-6)
    assert si_sdr(noisy - clean, found.waveform) > 5


def _nothing_is_installed(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}")
