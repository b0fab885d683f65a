"""The sheet of spectrograms: a row per item, a panel per signal."""

import numpy as np
import pytest
import show_noise
from commands import call, refusal
from matplotlib import image
from small_corpora import save

RATE = 16000


@pytest.fixture
def test_set(tmp_path):
    folder = tmp_path / "set"
    for number in range(3):
        for name in ("clean", "noisy", "ref", "ref_oracle"):
            save(folder / name / f"s_{number}.flac", 0.5, RATE)
    rows = "".join(f"s_{number},rain,5\n" for number in range(3))
    (folder / "manifest.csv").write_text("id,kind,snr_db\n" + rows)
    return folder


def test_a_row_holds_mixture_noise_and_every_reference(test_set):
    rows, rate = show_noise.set_rows(test_set, 2)
    assert rate == RATE
    for row, n in zip(rows, (0, 2), strict=True):
        assert list(row)[:4] == [f"{n} rain 5 dB", "noise", "disjoint", "oracle"]
        assert list(row)[4].startswith("estimated (")
    clean, noisy = (show_noise.audio.read(test_set / name / "s_0.flac", RATE) for name in ("clean", "noisy"))
    np.testing.assert_array_equal(rows[0]["noise"], noisy - clean)


def test_the_sheet_has_a_strip_per_item(test_set, tmp_path, capsys):
    heights = []
    for num in (1, 3):
        out = tmp_path / f"{num}.png"
        assert f"{num} items" in call(show_noise.main, capsys, test_set, "--num", num, "--out", out)
        picture = image.imread(out)
        heights.append(picture.shape[0])
        assert 0.1 < picture[..., :3].mean() < 0.95
    assert heights[1] == 3 * heights[0]


def test_training_items_are_drawn_as_training_draws_them(tmp_path, capsys):
    for kind in ("speech", "noise"):
        for split in ("train", "valid"):
            for number in range(2):
                save(tmp_path / kind / split / f"{split}{number}.wav", 4.0, RATE)
    out, arguments = tmp_path / "sheet.png", ["--speech_dir", tmp_path / "speech", "--noise_dir", tmp_path / "noise"]
    call(show_noise.main, capsys, *arguments, "--num", 2, "--out", out)
    assert image.imread(out).ndim == 3


def test_rows_with_fewer_panels_are_filled_with_white(tmp_path):
    signal = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    show_noise.write_sheet([{"a": signal, "b": signal}, {"a": signal}], RATE, tmp_path / "sheet.png")
    picture = image.imread(tmp_path / "sheet.png")
    assert (picture[picture.shape[0] // 2 :, -50:, :3] == 1).all()


def test_wrong_arguments_are_one_sentence(test_set, tmp_path, capsys):
    assert "let the name end in .png" in refusal(show_noise.main, capsys, test_set, "--out", "sheet.txt")
    assert "--num 0" in refusal(show_noise.main, capsys, test_set, "--num", 0)
    assert "leave --speech_dir" in refusal(show_noise.main, capsys, test_set, "--speech_dir", tmp_path)
    assert "manifest.csv: is missing" in refusal(show_noise.main, capsys, tmp_path)
    (test_set / "ref/s_2.flac").unlink()
    assert "s_2 of the manifest lacks a file" in refusal(show_noise.main, capsys, test_set)
