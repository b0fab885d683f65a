"""Files in → enhanced files out; a pipe is a folder of one file."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.diffusion.guidance import ADAPTIVE, GuidanceSettings
from sgmse.diffusion.samplers import sampler_name
from sgmse.enhancement import disagreement, ledger
from sgmse.enhancement.disagreement import Disagreement
from sgmse.enhancement.engine import Engine, Enhanced
from sgmse.enhancement.guidance import (
    PICTURE,
    adaptive_facts,
    describe_guidance,
    draw_adaptive,
    guidance_facts,
    load_weak,
    needs_reference,
)
from sgmse.enhancement.ledger import input_digests, is_done, open_ledger, write_run
from sgmse.enhancement.long_recordings import enhance_long
from sgmse.enhancement.lookup import check_inputs
from sgmse.enhancement.recordings import write_enhanced
from sgmse.enhancement.request import check_request, choose_chunks, choose_sampler, find_files, parse_shard
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.signals import compile_network
from sgmse.enhancement.test_set import Item, TestSet
from sgmse.evaluation.results import Results
from sgmse.model.checkpoints import newest_checkpoint
from sgmse.model.chunking import Chunks
from sgmse.model.enhancer import Enhancer
from sgmse.settings.config import EnhanceConfig

PIPE = "-"
EXPORT_S = 20.0  # between two writings of run.json
_RECORDED = ("batch_size", "chunk_s", "overlap_s", "channels", "keep_highband", "num_samples", "precision", "compile")

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run over the files of a folder."""

    engine: Engine
    test_set: TestSet
    setting: Setting
    chunks: Chunks
    keep_highband: bool
    out_dir: Path

    def enhance(self, items: Sequence[Item], results: Results, inputs: dict[str, str]) -> list[Row]:
        """Enhance and write files, and add a row for each group as soon as it is written. `inputs`: digests by name."""
        rows: list[Row] = []
        exported = start = time.monotonic()
        with tqdm(total=len(items), unit="file") as progress:
            for group in self._groups(items):
                seconds, total = time.monotonic() - start, sum(row["audio_s"] for row in group)
                for row in group:
                    output = ledger.file_digest(self.out_dir / row["file"])
                    row |= {"input": inputs[row["file"]], "output": output, "time": time.time()}
                    row["seconds"] = seconds * row["audio_s"] / total
                results.add(group)
                rows += group
                progress.update(len(group))
                start = time.monotonic()
                if start - exported > EXPORT_S:
                    write_run(results)
                    exported = start
        return rows

    def _groups(self, items: Sequence[Item]) -> Iterator[list[Row]]:
        """Rows of files that were enhanced together: long ones alone, the others with those of equally many frames."""
        size = self.chunks.size
        long = {item.name for item in items if size and audio.info(item.noisy).seconds * self.engine.rate > size}
        short = [item for item in items if item.name not in long]
        for group in self.engine.encode_groups(self.test_set, self.setting, short):
            yield [self._write(enhanced) for enhanced in self.engine.enhance_group(group, self.setting)]
        for item in items:
            if item.name in long:
                yield [self._enhance_long(item)]

    def _write(self, enhanced: Enhanced) -> Row:
        item, rate = enhanced.item, self.engine.rate
        output = self.out_dir / item.name
        peak = write_enhanced(enhanced, output, rate, self.keep_highband, self.engine.mix)
        spread = None
        if self.engine.num_samples > 1:
            found = Disagreement(self.engine.model.transform)
            deviation = found.add(enhanced.samples.to(self.engine.model.device)).cpu().numpy()
            picture = (self.out_dir / "disagreement" / item.name).with_suffix(".png")
            disagreement.draw(deviation, enhanced.noisy.shape[-1] / rate, rate, picture)
            spread = found.value
        row = self._row(item, enhanced.noisy.shape[-1] / rate, peak, spread, enhanced.distance)
        costs = {"nfe": enhanced.nfe, "passes": enhanced.passes}
        return row | costs | {"reference": enhanced.source, "is_null": enhanced.is_null}

    def _enhance_long(self, item: Item) -> Row:
        output = self.out_dir / item.name
        arguments = (self.engine, self.test_set, self.setting, item, output, self.chunks, self.keep_highband)
        found = enhance_long(*arguments)
        row = self._row(item, audio.info(item.noisy).seconds, found.peak, found.disagreement, found.distance)
        costs = {"nfe": found.nfe, "passes": found.passes}
        return row | costs | {"reference": found.source, "is_null": found.is_null}

    def _row(self, item: Item, seconds: float, peak: float, spread: float | None, distance: float | None) -> Row:
        guidance = self.setting.guidance
        return {
            "checkpoint": self.engine.model.checkpoint_sha256,
            "setting": self.setting.key,
            "file": item.name,
            "audio_s": seconds,
            "peak": peak,
            "disagreement": None if spread is None else round(spread, 4),
            "adaptive": None if distance is None else adaptive_facts(guidance, distance),
        }


def enhance_folder(
    config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], is_pipe: bool = False
) -> None:
    """Enhance every file of `config.test_dir`. `sampler`: settings that replace the checkpoint's.

    `is_pipe`: the folders serve a pipe, so that they are not worth a word.
    """
    check_request(config, guidance)
    shard = parse_shard(config.shard)
    if is_pipe and shard is not None:
        raise UserError("--shard shares out the files of a folder, and a pipe is one file; leave it out")
    ckpt = Path(config.ckpt) if config.ckpt else newest_checkpoint(Path("logs"))
    model = Enhancer.from_checkpoint(ckpt, config.device, config.encoder_checkpoint)
    if config.compile:
        compile_network(model)
    settings = choose_sampler(config, sampler, model)
    out_dir = Path(config.enhanced_dir or Path("enhanced") / _run_name(ckpt))
    test_set = find_files(config, ckpt, model, out_dir)
    setting = Setting(settings, guidance, test_set.protocol, config.seed, config.t_eps)
    weak = load_weak(setting, model, ckpt, test_set, config.encoder_checkpoint)
    mix = config.channels == "mix"
    engine = Engine(model, config.batch_size, config.precision, config.num_samples, mix, weak)
    run = Run(engine, test_set, setting, choose_chunks(config, ckpt, model), config.keep_highband, out_dir)
    _describe(config, ckpt, run)
    if not is_pipe:
        print(f"noisy: {test_set.folder}" + ("" if config.test_dir else " (the embedded test set; see --test_dir)"))
        print(f"enhanced: {out_dir}" + ("" if config.enhanced_dir else " (choose with --enhanced_dir)"))
    items = test_set.items if shard is None else shard.select(test_set.items)
    if shard is not None:
        print(f"shard {config.shard}: {len(items)} of {len(test_set.items)} files")
    ledger.check_foreign(out_dir, [out_dir / item.name for item in items])
    facts = run_facts(config, ckpt, run)
    inputs = input_digests(dataclasses.replace(test_set, items=items))
    # a broken file is refused before the folder is touched
    left = _find_left(run, items, inputs, ledger.read_done(out_dir, facts))
    check_inputs(test_set, left, test_set.protocol, model.settings["n_fft"], engine.rate)
    with open_ledger(out_dir, facts, None if shard is None else shard.name) as results:
        _enhance_left(run, items, inputs, results)


def _find_left(run: Run, items: Sequence[Item], inputs: dict[str, str], done: dict[str, Row]) -> list[Item]:
    """The files that are not done; `done`: the row of each file that has one."""
    return [item for item in items if not is_done(done.get(item.name), run.out_dir / item.name, inputs[item.name])]


def _enhance_left(run: Run, items: Sequence[Item], inputs: dict[str, str], results: Results) -> None:
    """Enhance what is not done yet, and say how it went."""
    left = _find_left(run, items, inputs, {row["file"]: row for row in results.rows()})
    if results.changed:
        print(f"all files are done again: {', '.join(results.changed)} changed since the last run")
    elif len(left) < len(items):
        print(f"{len(items) - len(left)} files are done already with these settings")
    results.remove(item.name for item in left)
    write_run(results)
    rows = run.enhance(left, results, inputs)
    missing = [item.name for item in items if not (run.out_dir / item.name).is_file()]
    if missing:
        raise UserError(f"{run.out_dir}: {len(missing)} results are gone, first {missing[0]}; run the command again")
    _report(run, rows, results)


def run_facts(config: EnhanceConfig, ckpt: Path, run: Run) -> dict[str, Any]:
    """The settings of a run, for run.json: results count under these only."""
    engine, setting, test_set = run.engine, run.setting, run.test_set
    model = engine.model
    return {
        "checkpoint": str(ckpt),
        "checkpoint_sha256": model.checkpoint_sha256,
        "averaged_weights": model.averaged,
        "encoder": model.settings["encoder"],
        "encoder_weights": None if model.encoder is None else model.encoder.identity,
        "reference": test_set.protocol,
        "reference_dir": None if test_set.reference_dir is None else str(test_set.reference_dir.resolve()),
        **guidance_facts(setting.guidance, engine.weak),
        "sampler": sampler_name(setting.sampler, model.sde),
        **{name: value for name, value in dataclasses.asdict(setting.sampler).items() if name != "sampler"},
        "t_eps": model.t_eps if setting.t_eps is None else setting.t_eps,
        "seed": setting.seed,
        **{name: getattr(config, name) for name in _RECORDED},
        "sample_rate": engine.rate,
        "device": model.device.type,
    }


def enhance_pipe(
    config: EnhanceConfig, guidance: GuidanceSettings, sampler: dict[str, Any], source: BinaryIO, sink: BinaryIO
) -> None:
    """Enhance the audio file that `source` holds, of any format, into a WAV for `sink`. Both wait on the disk.

    What is said goes to stderr.
    """
    if config.enhanced_dir is not None or config.noise_ref_dir is not None or config.oracle_noise:
        raise UserError(
            "--test_dir - reads one file from stdin and writes its result to stdout; leave --enhanced_dir, "
            "--noise_ref_dir and --oracle_noise out (--noise_ref names a reference)"
        )
    if source.isatty():
        raise UserError("--test_dir - reads stdin, which is a terminal; pipe an audio file in, as in `cat a.wav | ...`")
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        noisy, out = Path(folder, "in", "stdin.wav"), Path(folder, "out")
        noisy.parent.mkdir()
        try:
            with noisy.open("wb") as file:
                shutil.copyfileobj(source, file)
            audio.info(noisy)
            config = dataclasses.replace(config, test_dir=str(noisy.parent), enhanced_dir=str(out))
            enhance_folder(config, guidance, sampler, is_pipe=True)
        except UserError as error:
            raise UserError(str(error).replace(str(noisy), "stdin")) from None
        except OSError as error:
            raise UserError(
                f"{folder}: stdin cannot be kept there ({error.strerror}); make room or set TMPDIR"
            ) from None
        with (out / noisy.name).open("rb") as result:
            try:
                shutil.copyfileobj(result, sink)
                sink.flush()
            except BrokenPipeError:
                raise UserError("stdout was closed before the result was written; check what reads it") from None


def _run_name(ckpt: Path) -> str:
    return ckpt.parent.parent.name if ckpt.parent.name == "checkpoints" else ckpt.stem


def _describe(config: EnhanceConfig, ckpt: Path, run: Run) -> None:
    """Print what is going to be done."""
    model, test_set, guidance = run.engine.model, run.test_set, run.setting.guidance
    default = "" if config.reference else " (the default; choose with --reference)"
    references = {
        "none": "none, the null condition" if model.encoder is not None else "none, the model takes none",
        "file": str(config.noise_ref),
        "folder": str(test_set.reference_dir),
        "disjoint": f"disjoint, {test_set.reference_dir}" + ("" if config.reference else " (found beside noisy/)"),
        "own_noise": "the file's own noise, all of it (an upper bound that leaks)",
        "estimated": f"estimated from each noisy file alone{default}",
        "self": "self, what a first pass without reference takes away",
    }
    kind = "published checkpoint" if model.published else "checkpoint"
    print(f"{kind}: {ckpt}" + ("" if config.ckpt else " (the newest; choose with --ckpt)"))
    if not model.averaged:
        print("warning: the checkpoint holds no averaged weights; the raw ones are used")
    protocol = test_set.protocol
    print(f"references: {references.get(protocol, f'{protocol}, {test_set.reference_dir}')}")
    sampler = run.setting.sampler
    print(f"sampler: {sampler_name(sampler, model.sde)}, N = {sampler.N}; {describe_guidance(guidance)}")
    if protocol == "none" and needs_reference(guidance):
        w = ADAPTIVE if guidance.is_adaptive else f"{guidance.scale:g}"
        print(f"warning: there is no reference, so --guidance_scale {w} has no effect")
    above = sum(audio.info(item.noisy).sample_rate > run.engine.rate for item in test_set.items)
    if above:
        fate = "is passed on unchanged" if config.keep_highband else "is removed (keep it with --keep_highband)"
        print(f"{above} files are above {run.engine.rate} Hz: their sound above {run.engine.rate / 2000:g} kHz {fate}")


def _report(run: Run, rows: Sequence[Row], results: Results) -> None:
    """Print warnings and costs of the files of this run; draw the adaptive scale over all files."""
    protocol, guidance, model = run.setting.protocol, run.setting.guidance, run.engine.model
    for row in rows:
        path = run.out_dir / row["file"]
        if row["peak"] > 1:
            is_float = path.suffix.lower() == ".wav" and "FLOAT" in audio.info(path).subtype.upper()
            fate = "kept as it is" if is_float else "the whole file was attenuated to fit"
            print(f"warning: {path} reached {row['peak']:.2f}, beyond ±1; {fate}")
        if row["disagreement"] is not None and row["disagreement"] > disagreement.HIGH:
            print(
                f"warning: {path}: its samples disagree by {row['disagreement']:.2f} of their level; the model invents "
                "here"
            )
    silent = [row["reference"] or row["file"] for row in rows if row["is_null"] and protocol != "none"]
    if silent:
        print(f"warning: {len(silent)} references are silent and became the null condition, first {silent[0]}")
    done = results.rows()
    if protocol == "estimated":
        ways = Counter(row["reference"] for row in done)
        print(f"estimated from stretches without speech: {ways['gaps']} files, from minima: {ways['minimum']}")
    if rows and guidance.is_adaptive and model.familiarity is not None:
        known = [row["adaptive"] for row in done if row["adaptive"] and row["adaptive"]["distance"] is not None]
        files = [(entry["distance"], entry["guidance_scale"]) for entry in known]
        draw_adaptive(guidance, model.familiarity, files, run.out_dir / PICTURE)
    if rows:
        seconds, audio_s = sum(row["seconds"] for row in rows), sum(row["audio_s"] for row in rows)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        if model.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(model.device) / 1e9
        print(
            f"{len(rows)} files, {audio_s:.0f} s of audio: real-time factor {seconds / audio_s:.3f}, nfe "
            f"{rows[-1]['nfe']}, passes {rows[-1]['passes']}, peak memory {memory:.2f} GB"
        )
