"""A test set of short files: the embedded one, cut."""

from pathlib import Path

from sgmse.data import audio, corpora, listing


def short_set(folder: Path, count: int, seconds: float) -> Path:
    """folder/{noisy,clean,ref}: `seconds` of each file (of every other one a little less), references whole."""
    embedded = corpora.embedded_dir() / "test"
    for place, path in enumerate(listing.find(embedded / "noisy")[:count]):
        reference = audio.read(listing.by_name(embedded / "ref", "ref")[path.stem], 16000)
        audio.write(folder / "ref" / f"{path.stem}.wav", reference, 16000)
        for kind in ("noisy", "clean"):
            waveform = audio.read(listing.by_name(embedded / kind, kind)[path.stem], 16000)
            begin, length = len(waveform) // 4, round(seconds * 16000) - 100 * (place % 2)
            audio.write(folder / kind / f"{path.stem}.wav", waveform[begin : begin + length], 16000)
    return folder
