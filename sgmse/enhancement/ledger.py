"""What is done already in an output folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from sgmse.common.errors import UserError
from sgmse.common.files import write_json
from sgmse.enhancement.old.test_set import Job, Shard
from sgmse.evaluation.scores import PER_FILE

LEDGER = "run.json"  # in the output folder: the settings, and which files are done with them
# paths, of which the checkpoint's hash and the references themselves count; a batch changes results below hearing
_MAY_DIFFER = ("checkpoint", "reference_dir", "batch_size")


class Ledger:
    """run.json in the output folder: the settings, and for each finished file what it and its reference were made from.

    A file is done when it is there and its noisy file and reference still have the recorded sizes and times, under the
    same settings. Settings that differ start the ledger anew. Nothing is written before `start`.

    A shard of a run notes its files in a ledger of its own, run.K-of-N.json, so that shards may run at the same time.
    `gather` brings all of them into run.json. content: of the own ledger.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self.folder, self.settings, self.shard = folder, _plain(settings), shard
        self.path = folder / (LEDGER if shard is None else f"run.{shard.index}-of-{shard.count}.json")
        stored = _stored(folder / LEDGER)
        self.changed = [] if stored is None else self._differing(stored)
        self.is_new = stored is None and not self._parts()
        whole = self._merged()
        self._done: dict[str, str] = whole["files"]
        self.content = whole if shard is None else self._merge([_stored(self.path)])

    def start(self, jobs: list[Job]) -> None:
        """Make the folder. Raises `UserError` where it cannot be written or holds files of somebody else."""
        foreign = [job.output for job in jobs if self.is_new and job.output.exists()]
        if foreign:
            raise UserError(f"{foreign[0]}: exists and was not made by this command; choose another --enhanced_dir")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write()
            self.gather()
            for path in self._parts():  # those of these shards stay: they may be at work
                if not self._is_beside(path) or not self._fits(_stored(path)):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --enhanced_dir"
            ) from None

    def is_done(self, job: Job) -> bool:
        return job.output.exists() and self._done.get(self._name(job)) == _fingerprint(job)

    def add(self, job: Job, reference: str | None, disagreement: float | None = None) -> None:
        """Note that a file is done, what its reference was (a path, or how it was estimated), how samples disagree."""
        self.content["files"][self._name(job)] = _fingerprint(job)
        self.content["references"][self._name(job)] = reference
        if disagreement is not None:
            self.content.setdefault("disagreement", {})[self._name(job)] = round(disagreement, 4)
        self.write()

    def write(self, **totals: Any) -> None:
        self.content |= totals
        write_json(self.path, self.content)

    def gather(self) -> dict[str, Any]:
        """Bring what every shard has noted into run.json, and return it.

        Shards may do it at the same time: each looks again after it wrote, so the last one leaves all of it.
        """
        if self.shard is None:
            return self.content
        while (whole := self._merged()) != _stored(self.folder / LEDGER):
            write_json(self.folder / LEDGER, whole)
        return whole

    def _merged(self) -> dict[str, Any]:
        """What run.json and the ledgers of shards say of files that were done with these settings."""
        parts = [_stored(path) for path in self._parts()]
        merged = self._merge([_stored(self.folder / LEDGER), *parts])
        timed = [(part["rtf"], len(part["files"])) for part in parts if part and self._fits(part) and "rtf" in part]
        if timed:
            merged["rtf"] = round(sum(rtf * n for rtf, n in timed) / max(1, sum(n for _, n in timed)), 4)
        return merged

    def _merge(self, ledgers: list[dict[str, Any] | None]) -> dict[str, Any]:
        """The content of those of the ledgers that have these settings; of two entries the later one counts."""
        merged: dict[str, Any] = {"files": {}, "references": {}}
        for ledger in ledgers:
            if ledger is not None and not self._differing(ledger):
                per_file = {name: merged.get(name, {}) | ledger[name] for name in PER_FILE if name in ledger}
                merged |= ledger | per_file
        if "estimated_from" in merged:
            merged["estimated_from"] = Counter(merged["references"].values())
        return _plain(merged | self.settings)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("run.*-of-*.json"))

    def _is_beside(self, part: Path) -> bool:
        """Whether it is the ledger of a shard of this division of the files."""
        return self.shard is not None and part.name.endswith(f"-of-{self.shard.count}.json")

    def _fits(self, stored: dict[str, Any] | None) -> bool:
        return stored is not None and not self._differing(stored)

    def _differing(self, stored: dict[str, Any]) -> list[str]:
        """The settings that differ."""
        names = self.settings.keys() - set(_MAY_DIFFER)
        return sorted(name for name in names if stored.get(name) != self.settings[name])

    def _name(self, job: Job) -> str:
        return job.output.relative_to(self.folder).as_posix()


def _stored(path: Path) -> dict[str, Any] | None:
    """The content of a ledger; None without one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        stored = None
    if not isinstance(stored, dict) or not isinstance(stored.get("files"), dict):
        raise UserError(f"{path}: is damaged or not of this command; remove it or change --enhanced_dir")
    return stored


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As it is after being written and read."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _fingerprint(job: Job) -> str:
    """Identity of the inputs of a job: sizes and times of the files, and the reference's path."""
    stats = [(p.stat().st_size, p.stat().st_mtime_ns) for p in (job.noisy, job.reference) if p is not None]
    return hashlib.sha256(repr((stats, str(job.reference))).encode()).hexdigest()[:16]
