"""Tiny corpora in the layouts in which the real ones are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_corpora import save

SPEAKERS = ("p225", "p226", "p287", "p300")
TEST_LOG = """p232_001 bus 17.5
p232_002 cafe 1.250000e+01
p232_003 bus 7.5
p257_001 bus 2.5
p257_004 cafe 17.5
p257_005 bus 12.5
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def esc50(root: Path, folds: int = 5) -> Path:
    """Two recordings per fold, a dog and a rain; the dog's recording gives two takes."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for number, take, target, category in ((1, "A", 0, "dog"), (1, "B", 0, "dog"), (2, "A", 10, "rain")):
            name = f"{fold}-{1000 * fold + number}-{take}-{target}.wav"
            rows.append(f"{name},{fold},{target},{category},True,{1000 * fold + number},{take}")
            save(root / "audio" / name, 0.2, rate=44100)
    write(root / "meta/esc50.csv", "\n".join(rows) + "\n")
    return root


def urbansound8k(root: Path) -> Path:
    """A recording per fold with two slices; fold 1 has another, and shares its first with fold 10, as none does."""
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for source, slice_number in ((fold, 0), (fold, 1), *{1: [(11, 0)], 10: [(1, 2)]}.get(fold, [])):
            name = f"{source}-3-0-{slice_number}.wav"
            rows.append(f"{name},{source},0.0,0.2,1,{fold},3,dog_bark")
            stereo = 0.1 * np.random.default_rng((fold, slice_number)).standard_normal((2205, 2))
            save(root / f"audio/fold{fold}" / name, rate=22050 if fold % 2 else 11025, samples=stereo)
    write(root / "metadata/UrbanSound8K.csv", "\n".join(rows) + "\n")
    return root


def wham(root: Path, metadata: bool = True) -> Path:
    """Two clips per part; one long recording gave clips to training and test."""
    header = "utterance_id,Noise Band,File ID,L to R Width (cm),Reverberation Level,Location ID,Location Day ID"
    for part in ("tr", "cv", "tt"):
        rows = [header]
        for index, recording in enumerate(("file000" if part != "cv" else "file007", f"file_{part}")):
            name = f"40na010{part}{index}_1.9857_01xo031a_-1.9857.wav"
            rows.append(f"{name},{index},{recording},17 cm,l,loc0{index},loc0{index}_day1")
            save(root / part / name, 0.2)
        if metadata:
            write(root / f"metadata/noise_meta_{part}.csv", "\n".join(rows) + "\n")
    return root


def demand(root: Path) -> Path:
    """Three environments, one of them at both rates, two channels each."""
    for folder, rate in (("DKITCHEN", 16000), ("DKITCHEN_48k/DKITCHEN", 48000), ("TBUS", 16000), ("NPARK", 16000)):
        for channel in ("ch01", "ch02"):
            save(root / folder / f"{channel}.wav", 0.2, rate)
    return root


def audioset(root: Path, table: str = "balanced_train_segments.csv", clips: int = 40) -> Path:
    """Clips named in the ways that people use, labelled "Animal" and sometimes more specifically, or "Speech"."""
    lines = ["# Segments csv created Sun Mar  5 10:54:31 2017", "# num_ytids=40", "# YTID, start_seconds, ..."]
    for index in range(clips):
        youtube_id = f"-{index:02d}_abcdefg"
        labels = "/m/0jbk" if index % 4 else "/m/0jbk,/m/0bt9lr" if index % 8 else "/m/0jbk,/m/09x0r"
        lines.append(f'{youtube_id}, 30.000, 40.000, "{labels}"')
        name = (f"{youtube_id}", f"Y{youtube_id}", f"{youtube_id}_30000_40000")[index % 3]
        save(root / "wav" / f"{name}.flac", 0.2)
    write(root / table, "\n".join(lines) + "\n")
    names = "index,mid,display_name\n0,/m/09x0r,Speech\n72,/m/0jbk,Animal\n74,/m/0bt9lr,Dog\n"
    write(root / "class_labels_indices.csv", names)
    return root


def voicebank(root: Path) -> Path:
    """Two pairs for each of four training speakers and six test pairs at 48 kHz, with their logs."""
    train_log = "".join(f"{speaker}_00{i} {kind} 5\n" for speaker in SPEAKERS for i, kind in ((1, "ssn"), (2, "metro")))
    for folder, log, text in (
        ("trainset_28spk_wav", "log_trainset_28spk.txt", train_log),
        ("testset_wav", "log_testset.txt", TEST_LOG),
    ):
        write(root / "logfiles" / log, text)
        for number, line in enumerate(text.splitlines()):
            rng = np.random.default_rng((len(text), number))
            clean, noise = 0.1 * rng.standard_normal((2, 12000 + 480 * number))
            name = line.split()[0]
            save(root / f"clean_{folder}" / f"{name}.wav", rate=48000, samples=clean)
            save(root / f"noisy_{folder}" / f"{name}.wav", rate=48000, samples=clean + noise)
    return root
