"""VoiceBank-DEMAND (Valentini-Botinhao 2017): 28 training speakers, two of them held out for validation; 824 tests."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from sgmse.common.download import Archive, obtain, unpack
from sgmse.common.errors import UserError
from sgmse.common.files import whole_folder, write_rows
from sgmse.common.progress import track
from sgmse.data import audio, listing
from sgmse.data.corpora import Pair, manifest, matched_pairs, paired_files
from sgmse.data.corpora.manifest import Entry
from sgmse.data.corpora.published import wrong_layout
from sgmse.data.mixing import rms
from sgmse.data.references import leak

PAGE = "https://datashare.ed.ac.uk/handle/10283/2791"
LICENCE = "CC BY 4.0"
VALID_SPEAKERS = ("p226", "p287")
PAIRS = {"train": 11572, "test": 824}  # published numbers of pairs; train includes validation
NOISY_PESQ, PESQ_TOLERANCE = 1.97, 0.01  # wide-band PESQ of the unprocessed test set at 16 kHz, as papers report it

_ITEM = "https://datashare.ed.ac.uk/server/api/core/bitstreams/{}/content"
ARCHIVES = tuple(
    Archive(_ITEM.format(item), f"{name}.zip", f"md5:{md5}")
    for name, item, md5 in (
        ("clean_testset_wav", "dec213d3-bf57-4777-9663-c24bdce92d5e", "34eb1c0ba7ef667e9b966866c542fc16"),
        ("noisy_testset_wav", "13c1bfbf-14a6-41db-9b41-8f7310f01ad5", "fb1b86caa31e8ba5b506c0c64da9aab5"),
        ("logfiles", "11185dc8-9cf1-405b-b858-35bd6a04aedd", "0d16f5b6afe12d64238d1e4a0e6ff6e8"),
        ("clean_trainset_28spk_wav", "245452b6-6235-44b6-a6f9-e7eb19797769", "d2d5a45ec32f8fcbf201bde0447e20ba"),
        ("noisy_trainset_28spk_wav", "ecb5a102-bb00-46d3-8af5-40c79823b837", "1fca9e8bafb8cd069f6653c6d92f9e9c"),
    )
)
_LOGS = {"train": "log_trainset_28spk.txt", "test": "log_testset.txt"}
_FOLDERS = {"train": "trainset_28spk_wav", "test": "testset_wav"}
_SPLITS_OF = {"train": ("train", "valid"), "test": ("test",)}  # of the published sets
_INCOMPLETE = ".incomplete"
_PEAK = 0.999
Condition = tuple[str, float]  # noise type of a noisy file and its ratio in dB, as a log says it
_COLUMNS = ("id", "kind", "source", "snr_db", "ref_source", "seconds", "ref_seconds")


def prepare(source: Path | None, out: Path, sample_rate: int, published: Sequence[str] = tuple(PAIRS)) -> None:
    """Write `out`/{train,valid,test}/{clean,noisy}, `out`/test/ref and the manifests, as FLAC at `sample_rate`.

    `source` holds the published folders or zip files; None downloads them below `out`. Splits are built in
    `out`/.incomplete/RATE and appear whole; what an interrupted call has done is kept, and nothing is left to do for a
    folder that is whole. `published`: which of the published sets, train (which becomes train and valid) and test.
    """
    wanted = [split for name in published for split in _SPLITS_OF[name]]
    for folder in (out / split for split in manifest.SPLITS if (out / split).is_dir()):
        found = audio.info(listing.find(folder)[0]).sample_rate
        if found != sample_rate:
            raise UserError(f"{folder}: exists at {found} Hz; name another --out or --sample_rate {found}")
    table = out / manifest.MANIFEST
    if table.exists() and all((out / split).exists() for split in wanted):
        return
    folders = _locate(source, out, published)
    pairs = {name: _read_pairs(folders, name) for name in published}
    conditions = {name: _read_log(folders["logfiles"], name, pairs[name]) for name in published}
    check_partners(conditions.get("test", {}))
    parts = {
        split: [pair for pair in pairs[name] if name == "test" or _split_of(pair) == split]
        for name in published
        for split in _SPLITS_OF[name]
    }
    building = out / _INCOMPLETE / str(sample_rate)
    for split, chosen in parts.items():
        if not (out / split).exists():
            _write_pairs(building / split, chosen, sample_rate, split)
            if split == "test":
                written = matched_pairs(building / split / "clean", building / split / "noisy")
                _write_references(building / split, written, conditions["test"])
            (building / split).replace(out / split)
    known = {name: condition for found in conditions.values() for name, condition in found.items()}
    entries = [
        Entry(out / split / "noisy" / f"{pair.name}.flac", (known[pair.name][0],), speaker(pair.name), split)
        for split, chosen in parts.items()
        for pair in chosen
    ]
    others = [clip for clip in manifest.read(table) if clip.split not in parts] if table.exists() else []
    manifest.write(out, [*others, *manifest.measure(entries, out)])
    shutil.rmtree(out / _INCOMPLETE, ignore_errors=True)


def write_validation_set(voicebank: Path, items: int, out: Path) -> None:
    """Write `out`/{noisy,clean,ref,manifest.csv}: so many pairs of the held-out speakers, spread over all of them.

    References are chosen as in the test set. The set appears whole or not at all; one that is there stays.
    """
    if out.exists():
        return
    pairs = paired_files(voicebank, "valid")
    kinds = {clip.path.stem: clip.kind for clip in manifest.read(voicebank / manifest.MANIFEST)}
    levels = {pair.name: (rms(audio.read(pair.clean.path, None)), rms(_read_noise(pair))) for pair in pairs}
    snrs_db = {n: round(20 * math.log10(max(a, 1e-9) / max(b, 1e-9)), 1) for n, (a, b) in levels.items()}
    conditions = {name: (kinds[name], snr_db) for name, snr_db in snrs_db.items()}
    places = np.unique(np.linspace(0, len(pairs) - 1, min(items, len(pairs))).round().astype(int))
    with whole_folder(out) as building:
        chosen = [pairs[place] for place in places]
        for pair in chosen:
            for kind, info in (("clean", pair.clean), ("noisy", pair.noisy)):
                audio.write(building / kind / f"{pair.name}.flac", audio.read(info.path, None), info.sample_rate)
        _write_references(building, pairs, conditions, chosen)


def _split_of(pair: Pair) -> str:
    return "valid" if speaker(pair.name) in VALID_SPEAKERS else "train"


def speaker(name: str) -> str:
    """The speaker of a file, e.g. p226 of p226_001."""
    return name.partition("_")[0]


def choose_references(pairs: Sequence[Pair], conditions: Mapping[str, Condition]) -> dict[str, str]:
    """For every file another one with the same noise type and another sentence, whose noise is its reference.

    Every file serves about once; the choice is random but always the same, so SNRs of the two are unrelated. The noises
    of two files may be cut from one stretch of DEMAND: a file whose noise holds samples of the other's is passed over,
    unless all of them do.
    """
    check_partners(conditions)
    chosen, by_name = {}, {pair.name: pair for pair in pairs}
    for kind, names in sorted(_group_by_kind(conditions).items()):
        order = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
        for i, name in enumerate(track(order, len(order), f"references of {kind}")):
            others = [other for other in order[i + 1 :] + order[:i] if _sentence(other) != _sentence(name)]
            chosen[name] = next(
                (other for other in others if not _shares_noise(by_name[other], by_name[name])), others[0]
            )
    return dict(sorted(chosen.items()))


def check_partners(conditions: Mapping[str, Condition]) -> None:
    """Raise `UserError` unless every file has another one with its noise type and another sentence."""
    for kind, names in _group_by_kind(conditions).items():
        if len({_sentence(name) for name in names}) < 2:
            raise UserError(f"{names[0]}: no other test file has the noise '{kind}' and another sentence to refer to")


def _group_by_kind(conditions: Mapping[str, Condition]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(conditions):
        groups[conditions[name][0]].append(name)
    return groups


def _shares_noise(pair: Pair, other: Pair) -> bool:
    """Whether the noises of two pairs are cut from one stretch of a recording."""
    return leak.score(_read_noise(pair), _read_noise(other), pair.noisy.sample_rate).shared


@lru_cache(maxsize=64)
def _read_noise(pair: Pair) -> np.ndarray:
    """What a pair's noisy file holds beside the clean one [N]."""
    return audio.read(pair.noisy.path, None) - audio.read(pair.clean.path, None)


def _sentence(name: str) -> str:
    return name.partition("_")[2]


def _locate(source: Path | None, out: Path, published: Sequence[str]) -> dict[str, Path]:
    """The folder of every archive that is needed: in `source`, unpacked from a zip there, or downloaded."""
    downloads = out / "download"
    endings = ("logfiles", *(_FOLDERS[name] for name in published))
    archives = [archive for archive in ARCHIVES if archive.stem.endswith(endings)]
    if source is None:
        return {archive.stem: obtain([archive], downloads) / archive.stem for archive in archives}
    folders = {archive.stem: source / archive.stem for archive in archives}
    if (source / _LOGS["test"]).is_file():
        folders["logfiles"] = source  # people unpack logfiles.zip beside the others
    zipped = [name for name, folder in folders.items() if not folder.is_dir()]
    for name in zipped:
        if not (source / f"{name}.zip").exists():
            raise wrong_layout(source, "VoiceBank-DEMAND", f"{name}/ or {name}.zip")
    for name in zipped:
        unpack(source / f"{name}.zip", downloads / name)
        folders[name] = downloads / name
    return folders


def _read_pairs(folders: Mapping[str, Path], split: str) -> list[Pair]:
    """The pairs of a split, checked for number, length and, in training, the speakers to hold out."""
    clean, noisy = (folders[f"{kind}_{_FOLDERS[split]}"] for kind in ("clean", "noisy"))
    pairs = [pair._replace(name=Path(pair.name).name) for pair in matched_pairs(clean, noisy)]
    if len(pairs) != PAIRS[split]:
        raise UserError(
            f"{noisy}: holds {len(pairs)} pairs, but VoiceBank-DEMAND has {PAIRS[split]} ({split}); unpack it again"
        )
    missing = set(VALID_SPEAKERS) - {speaker(pair.name) for pair in pairs}
    if split == "train" and missing:
        raise UserError(f"{noisy}: holds no file of speaker {min(missing)}, who is needed for validation")
    return pairs


def _read_log(folder: Path, split: str, pairs: Sequence[Pair]) -> dict[str, Condition]:
    """What the log of a split says of its files: lines of name, noise type and SNR in dB."""
    path = next(iter(sorted(folder.rglob(_LOGS[split]))), folder / _LOGS[split])
    if not path.is_file():
        raise UserError(f"{path}: is missing; it comes with logfiles.zip and names the noise types")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            name, kind, snr_db = words[:3]
            found[name.removesuffix(".wav")] = kind, float(snr_db)
        except ValueError:
            raise UserError(f"{path}: line {number} is not 'name noise SNR'; download logfiles.zip again") from None
    unknown = sorted({pair.name for pair in pairs} - found.keys())
    if unknown:
        raise UserError(f"{path}: lacks {unknown[0]} and {len(unknown) - 1} more of the files; download it again")
    return {pair.name: found[pair.name] for pair in pairs}


def _write_pairs(folder: Path, pairs: Sequence[Pair], sample_rate: int, split: str) -> None:
    """Resample pairs; a pair whose noisy file would clip is attenuated as a whole, so that noisy - clean stays true."""
    for pair in track(pairs, len(pairs), f"resampling {split}", "pair"):
        clean_path, noisy_path = (folder / kind / f"{pair.name}.flac" for kind in ("clean", "noisy"))
        if clean_path.exists() and noisy_path.exists():
            continue
        clean, noisy = (audio.read(info.path, sample_rate) for info in (pair.clean, pair.noisy))
        peak = max(float(np.abs(clean).max()), float(np.abs(noisy).max()))
        gain = np.float32(_PEAK / peak if peak > 1 else 1.0)
        audio.write(clean_path, gain * clean, sample_rate)
        audio.write(noisy_path, gain * noisy, sample_rate)


def _write_references(
    folder: Path, pairs: Sequence[Pair], conditions: Mapping[str, Condition], items: Sequence[Pair] | None = None
) -> None:
    """Write ref/NAME, the noise of one of `pairs`, for each of `items` (default: all pairs), and manifest.csv.

    The columns are id, kind, source (of the noise: DEMAND has one recording of each kind), snr_db, ref_source (the
    pair whose noise it is) and lengths in seconds.
    """
    references, by_name = choose_references(pairs, conditions), {pair.name: pair for pair in pairs}
    rows = []
    wanted = pairs if items is None else items
    for pair in track(wanted, len(wanted), "references"):
        name, other = pair.name, by_name[references[pair.name]]
        path = folder / "ref" / f"{name}.flac"
        if not path.exists():
            audio.write(path, _read_noise(other), other.noisy.sample_rate)
        kind, snr_db = conditions[name]
        seconds = (f"{pair.noisy.seconds:.3f}", f"{other.noisy.seconds:.3f}")
        values = (name, kind, kind, f"{snr_db:g}", other.name, *seconds)
        rows.append(dict(zip(_COLUMNS, values, strict=True)))
    write_rows(folder / manifest.MANIFEST, _COLUMNS, rows)
