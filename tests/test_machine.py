"""A machine that gives no room, no rights or no stdout ends every command with one sentence and exit code 2."""

import ast
import getpass
import importlib
import os
import resource
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import published_layouts
import pytest
from commands import TINY, saved_run
from experiment_run import make_run
from short_set import short_set
from small_corpora import save
from test_reference_map import result
from tiny_experiments import StandIn, ready_sets, scale_file

from scripts import baseline_enhance
from sgmse.common import machine
from sgmse.common.errors import run
from sgmse.data import corpora
from sgmse.experiments.training import Launcher

ROOT = Path(__file__).parent.parent
NOBODY = 65534
CKPT = "TRAINED/checkpoints/last.ckpt"
# What each command is called with. OUT is where it writes, other words in capitals are inputs.
COMMANDS = {
    "sgmse.commands.train": f"--run_dir OUT --encoder none --speech_dir SPEECH --noise_dir NOISE {' '.join(TINY)}",
    "sgmse.commands.enhance": f"--ckpt {CKPT} --test_dir SET/noisy --noise_ref_dir SET/ref --enhanced_dir OUT",
    "sgmse.commands.evaluate": "--clean_dir SET/clean --noisy_dir SET/noisy --jobs 1 --csv OUT/scores.csv",
    "sgmse.commands.doctor": f"--ckpt {CKPT} --test_dir SET",
    "sgmse.commands.experiments": "CFG-01 --scale SCALE.yaml --out OUT --test_sets READY --jobs 1 --stage train",
    "scripts.baseline_enhance": "dtln SET OUT",
    "scripts.benchmark": "--parts loader --quick --device cpu --speech_dir SPEECH --noise_dir NOISE",
    "scripts.condition_probes": f"{CKPT} SET --parts gap --max_files 2 --out OUT",
    "scripts.export_model": f"{CKPT} OUT",
    "scripts.fetch_encoder": "panns --out OUT/weights.pth --url http://127.0.0.1:9/weights",
    "scripts.guidance_sweep": f"--ckpt {CKPT} --test_dir SET --scales 1 --steps 1 --out OUT --jobs 1",
    "scripts.make_corpus": "--out OUT",
    "scripts.make_testset": "ood --speech_dir SPEECH --noise_dir NOISE --out OUT --num 2 --jobs 1",
    "scripts.noise_coverage": f"--ckpt {CKPT} --test_dir SET --out OUT --max_files 2 --device cpu --jobs 1",
    "scripts.prepare": "esc50 --source ESC --out OUT",
    "scripts.reference_map": "USE/narrow/set USE/wide/set --out OUT",
    "scripts.reference_use": f"{CKPT} SET --max_files 2 --N 1 --jobs 1 --out OUT",
    "scripts.report": "RUN --out OUT",
    "scripts.show_noise": "SET --num 2 --out OUT/sheet.png",
}
WRITES_NOTHING = {"sgmse.commands.doctor", "scripts.benchmark"}
READS_NOTHING = {"scripts.benchmark", "scripts.fetch_encoder", "scripts.make_corpus"}  # or in processes of its own
PRINTS_LAST = {"scripts.fetch_encoder", "scripts.make_corpus"}  # refused before, as here there is no network


@pytest.fixture(scope="module")
def world():
    """A folder that everybody may read, with an input of every kind."""
    folder = Path(tempfile.mkdtemp(prefix="sgmse_machine"))
    folder.chmod(0o755)
    short_set(folder / "SET", 2, 0.6)
    rows = (corpora.embedded_dir() / "test" / "manifest.csv").read_text().splitlines()
    (folder / "SET" / "manifest.csv").write_text("\n".join(rows[:3]) + "\n")
    saved_run(folder / "TRAINED")
    make_run(folder / "RUN", ("BASE-00", "CFG-01"), items=2)
    published_layouts.esc50(folder / "ESC")
    for name in ("narrow", "wide"):
        result(folder / "USE" / name / "set", 1.2, 1.5, 1.1)
    ready_sets(folder / "READY")
    scale_file(folder).rename(folder / "SCALE.yaml")
    for path in (folder / kind / split for kind in ("SPEECH", "NOISE") for split in ("train", "valid")):
        for number in range(8):
            save(path / f"p22{number // 2}_00{number}.wav", 2.0, 16000)  # of four talkers
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def end(world, monkeypatch, capsys):
    """How a command ends: the exit code and the last line on stderr; none of its lines is one of a traceback."""
    monkeypatch.setattr(Launcher, "__call__", lambda self, *arguments: StandIn()(*arguments))
    monkeypatch.setattr(baseline_enhance, "load_baseline", lambda name: lambda waveform, rate: waveform)

    def ended(command: str, out: Path) -> tuple[int, str]:
        words = [word.partition("/") for word in COMMANDS[command].split()]
        places = {"OUT": out} | {name: world / name for name, *_ in words if (world / name).exists()}
        monkeypatch.setattr("sys.argv", [command, *(f"{places.get(n, n)}{slash}{rest}" for n, slash, rest in words)])
        with pytest.raises(SystemExit) as stop:
            run(importlib.import_module(command).main)
        printed, said = capsys.readouterr()
        ended.printed.append(printed)
        lines = said.splitlines()
        assert "Traceback" not in "".join(lines)
        return stop.value.code, lines[-1] if lines else ""

    ended.printed = []
    for command in COMMANDS:
        importlib.import_module(command)
    return ended


@contextmanager
def nobody():
    """Root is nobody for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@contextmanager
def no_room():
    """No file can take a byte, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_table_names_every_command():
    """Each of them calls `run`, which is what the table tries."""
    scripts = {f"scripts.{path.stem}" for path in (ROOT / "scripts").glob("*.py")}
    entries = {f"sgmse.commands.{path.stem}" for path in (ROOT / "sgmse" / "commands").glob("[a-z]*.py")}
    wrappers = {"scripts.doctor", "scripts.evaluate", "scripts.run_experiments"}
    serves = {"sgmse.commands.demo"}  # until it is interrupted, and writes nothing that stays
    assert set(COMMANDS) | serves == scripts - wrappers | entries
    for name in [*COMMANDS, *serves]:
        tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())
        assert any(isinstance(node, ast.Name) and node.id == "run" for node in ast.walk(tree)), name


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - WRITES_NOTHING))
@pytest.mark.parametrize("situation", [no_room, nobody])
def test_a_place_that_cannot_be_written_is_named(world, end, command, situation):
    out = world / f"{situation.__name__}_{command}"
    with situation():
        code, sentence = end(command, out)
    assert (code, sentence[:7]) == (2, "error: "), sentence
    assert command in PRINTS_LAST or str(out) in sentence
    assert "cannot find espeak-ng" in sentence or "elete it" not in sentence
    assert "emove it" not in sentence


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - WRITES_NOTHING))
def test_a_file_of_somebody_else_stays_and_nobody_is_told_to_remove_it(world, end, command, tmp_path):
    out = tmp_path / "thesis"
    out.write_text("chapter 1")
    code, sentence = end(command, out)
    assert (code, sentence[:7]) == (2, "error: "), sentence
    assert out.read_text() == "chapter 1"
    assert "emove it" not in sentence
    assert "elete it" not in sentence


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - WRITES_NOTHING))
def test_a_name_that_is_not_utf8_is_refused_before_any_work(world, end, command, tmp_path):
    code, sentence = end(command, tmp_path / os.fsdecode(b"by\xfftes"))
    assert (code, sentence[:7]) == (2, "error: "), sentence
    assert "the name is not UTF-8" in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - READS_NOTHING))
def test_an_input_without_rights_is_called_nothing_else(world, end, command, tmp_path):
    free = Path(tempfile.mkdtemp())
    free.chmod(0o777)
    inputs = [path for path in world.rglob("*") if path.is_file()]
    try:
        for path in inputs:
            path.chmod(0)
        with nobody():
            code, sentence = end(command, free / "out")
    finally:
        for path in inputs:
            path.chmod(0o644)
        shutil.rmtree(free)
    assert (code, sentence[:7]) == (2, "error: "), sentence
    assert "Permission denied" in sentence
    assert "emove it" not in sentence
    assert "elete it" not in sentence


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - PRINTS_LAST))
def test_a_stdout_that_takes_nothing_is_named(world, end, command, monkeypatch, tmp_path):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code, sentence = end(command, tmp_path / "out")
    assert (code, sentence) == (2, "error: stdout: No space left on device; check the path, its rights and the disk")


def test_what_is_complete_in_a_folder_without_rights_is_found_done(world, end):
    for command, found in (("train", "is complete, 1 of 1 steps"), ("enhance", "all 2 files are done already")):
        out, name = world / f"complete_{command}", f"sgmse.commands.{command}"
        assert end(name, out)[0] == 0
        end.printed.clear()
        with nobody():
            assert end(name, out)[0] == 0
        assert found in end.printed[0]


def test_a_machine_without_temporary_folder_or_user_is_given_both(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError("No usable temporary directory found")

    def no_user(_):
        raise KeyError("uid not found")

    lacking = {*machine._USER_NAMES, "HOME", "TMPDIR"}
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in lacking})
    monkeypatch.setattr(machine.pwd, "getpwuid", no_user)
    with monkeypatch.context() as patch:
        patch.setattr(
            machine.tempfile, "gettempdir", lambda: os.environ["TMPDIR"] if "TMPDIR" in os.environ else refuse()
        )
        machine.complete_environment()
    assert os.environ["TMPDIR"] == os.environ["HOME"] == machine._SHARED_MEMORY
    assert getpass.getuser() == str(os.getuid())
