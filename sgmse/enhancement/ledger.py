"""What is done already in an output folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sgmse.enhancement.jobs import Job
from sgmse.errors import UserError

LEDGER = "run.json"  # in the output folder: the settings, and which files are done with them
# paths, of which the checkpoint's hash and the references themselves count; a batch changes results below hearing
_MAY_DIFFER = ("checkpoint", "reference_dir", "batch_size")


class Ledger:
    """run.json in the output folder: the settings, and for each finished file what it and its reference were made from.

    A file is done when it is there and its noisy file and reference still have the recorded sizes and times, under the
    same settings. Settings that differ start the ledger anew. Nothing is written before `start`.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self.folder = folder / LEDGER, folder
        stored = self._stored()
        names = settings.keys() - set(_MAY_DIFFER)
        self.changed = sorted(name for name in names if stored and stored.get(name) != settings[name])
        self.is_new = stored is None
        before = stored if stored and not self.changed else {"files": {}}
        self.content: dict[str, Any] = {"references": {}, **before, **settings}

    def start(self, jobs: list[Job]) -> None:
        """Make the folder. Raises `UserError` where it cannot be written or holds files of somebody else."""
        foreign = [job.output for job in jobs if self.is_new and job.output.exists()]
        if foreign:
            raise UserError(f"{foreign[0]}: exists and was not made by this command; choose another --enhanced_dir")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --enhanced_dir"
            ) from None

    def is_done(self, job: Job) -> bool:
        return job.output.exists() and self.content["files"].get(self._name(job)) == _fingerprint(job)

    def add(self, job: Job, reference: str | None, disagreement: float | None = None) -> None:
        """Note that a file is done, what its reference was (a path, or how it was estimated), how samples disagree."""
        self.content["files"][self._name(job)] = _fingerprint(job)
        self.content["references"][self._name(job)] = reference
        if disagreement is not None:
            self.content.setdefault("disagreement", {})[self._name(job)] = round(disagreement, 4)
        self.write()

    def write(self, **totals: Any) -> None:
        self.content |= totals
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1))
        os.replace(temporary, self.path)

    def _stored(self) -> dict[str, Any] | None:
        """The content of run.json; None without one."""
        if not self.path.exists():
            return None
        try:
            stored = json.loads(self.path.read_text())
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict) or not isinstance(stored.get("files"), dict):
            raise UserError(f"{self.path}: is damaged or not of this command; remove it or change --enhanced_dir")
        return stored

    def _name(self, job: Job) -> str:
        return job.output.relative_to(self.folder).as_posix()


def _fingerprint(job: Job) -> str:
    """Identity of the inputs of a job: sizes and times of the files, and the reference's path."""
    stats = [(p.stat().st_size, p.stat().st_mtime_ns) for p in (job.noisy, job.reference) if p is not None]
    return hashlib.sha256(repr((stats, str(job.reference))).encode()).hexdigest()[:16]
