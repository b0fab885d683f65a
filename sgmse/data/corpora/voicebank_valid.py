"""A validation set with references from the held-out speakers of VoiceBank-DEMAND, made like its test set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sgmse.common.files import whole_folder, write_rows
from sgmse.data import audio, corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.voicebank import Condition, choose_references
from sgmse.data.mixing import rms

COLUMNS = ("id", "kind", "source", "snr_db", "ref_source", "seconds", "ref_seconds")


def write_validation_set(voicebank: Path, items: int, out: Path) -> None:
    """Write `out`/{noisy,clean,ref,manifest.csv}: so many validation pairs, spread over all of them.

    As in the test set, the reference of a pair is the noise (noisy − clean) of another one with the same noise type and
    another sentence. The set appears whole or not at all; one that is there stays.
    """
    if out.exists():
        return
    pairs = {pair.name: pair for pair in corpora.paired_files(voicebank, "valid")}
    kinds = {
        clip.path.stem: clip.kind for clip in manifest.read(voicebank / manifest.MANIFEST) if clip.split == "valid"
    }
    references = choose_references({name: Condition(kinds[name], math.nan) for name in pairs})
    names = sorted(pairs)
    places = np.unique(np.linspace(0, len(names) - 1, min(items, len(names))).round().astype(int))
    rows = []
    with whole_folder(out) as building:
        for name in (names[place] for place in places):
            clean, noise = _clean_and_noise(pairs[name])
            _, reference = _clean_and_noise(pairs[references[name]])
            rate = pairs[name].clean.sample_rate
            for kind, waveform in (("clean", clean), ("noisy", clean + noise), ("ref", reference)):
                audio.write(building / kind / f"{name}.flac", waveform, rate)
            snr_db = 20 * math.log10(max(rms(clean), 1e-9) / max(rms(noise), 1e-9))
            seconds = [f"{len(waveform) / rate:.3f}" for waveform in (clean, reference)]
            values = [name, kinds[name], name, f"{snr_db:.1f}", references[name], *seconds]
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        write_rows(building / manifest.MANIFEST, COLUMNS, rows)


def _clean_and_noise(pair: corpora.Pair) -> tuple[np.ndarray, np.ndarray]:
    clean = audio.read(pair.clean.path, None)
    return clean, audio.read(pair.noisy.path, None) - clean
