"""Predicted opinions of listeners and the similarity of voices: those of the published packages, better for clean."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sgmse
from sgmse.common.errors import UserError
from sgmse.data import audio, listing
from sgmse.evaluation import metrics, opinions

TEST_SET = Path(sgmse.__file__).parent / "data" / "embedded" / "test"
RATE = metrics.SAMPLE_RATE
# what speechmos 0.0.1.1 and distillmos 0.9.1 themselves say of `speech(part)`: SIG, BAK, OVRL, P.808, DistillMOS
PUBLISHED = {
    "clean": (3.25780, 3.80428, 2.91288, 3.78991, 2.17662),
    "noisy": (1.85151, 1.27841, 1.26165, 2.66489, 2.07985),
}


def speech(part: str, seconds: float = 9.5) -> np.ndarray:
    """The files of the embedded test set, one behind the other [N]."""
    return np.concatenate([audio.read(path, RATE) for path in listing.find(TEST_SET / part)])[: round(seconds * RATE)]


@pytest.mark.parametrize("part", PUBLISHED)
def test_opinions_are_those_of_the_published_packages(part):
    names = metrics.select_metrics(["dnsmos", "distillmos"])
    assert names == ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808", "distillmos")
    scores = metrics.score(None, speech(part), RATE, names=names)
    assert [scores[name] for name in names] == pytest.approx(PUBLISHED[part], abs=2e-4)
    assert scores["reason"] == ""
    assert all(clean > noisy for clean, noisy in zip(*PUBLISHED.values(), strict=True))


@pytest.mark.parametrize(("seconds", "stretches"), [(2.2, 7), (9.5, 1), (11.2, 2), (17.2, 7), (40.0, 14)])
def test_dnsmos_hears_as_many_stretches_as_the_published_package(monkeypatch, seconds, stretches):
    heard = []

    def run(_, inputs):
        heard.append(inputs["input_1"].shape)
        return [np.zeros((1, 3))]

    network = SimpleNamespace(run=run)
    silent = SimpleNamespace(run=lambda _, inputs: [np.zeros((1, 1))])
    monkeypatch.setattr(opinions, "_dnsmos_networks", lambda: (network, silent))
    opinions.dnsmos(speech("clean", seconds) if seconds < 20 else np.zeros(round(seconds * RATE)))
    assert heard == [(1, 144160)] * stretches


def test_a_voice_is_most_like_itself_and_noise_hides_it():
    clean, noisy = speech("clean", 5), speech("noisy", 5)
    other = audio.read(listing.find(TEST_SET / "clean")[-1], RATE)
    names = metrics.select_metrics(["speaker_similarity"])
    same, hidden = (metrics.score(clean, e, RATE, None, names)["speaker_similarity"] for e in (0.1 * clean, noisy))
    assert same == pytest.approx(1, abs=1e-4)
    assert max(hidden, opinions.speaker_similarity(clean, other)) < 0.9


@pytest.mark.parametrize("word", opinions.EXTRAS)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch, word):
    missing = opinions.EXTRAS[word][0][0]
    find_spec = opinions.find_spec
    monkeypatch.setattr(opinions, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(UserError, match=rf"{word}: .*{missing}.*pip install"):
        metrics.select_metrics([word])
