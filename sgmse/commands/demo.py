"""A page to play with: noisy speech and a noise in, enhanced speech and what was removed out.

Drop files or record, choose model, guidance scale and steps, and listen. The page is served to this machine alone;
nothing is sent anywhere, and recordings are deleted when the command ends.

examples:
  sgmse-demo
      the models that come along
  sgmse-demo logs/RUN/checkpoints/best_pesq.ckpt --port 8000
      and one of your own
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from sgmse.common.bounds import Bounds
from sgmse.common.errors import UserError, run
from sgmse.data import audio
from sgmse.data.corpora import embedded_dir
from sgmse.data.testsets.build import read_rows
from sgmse.model.pretrained import find_model, released_models
from sgmse.settings.cli import positional, read_command_line

MAX_SCALE, MAX_STEPS = 5.0, 60
_EXAMPLES = 6
_INTRODUCTION = """# Noise-conditioned speech enhancement

Record noisy speech or drop a file. Do the same with its **noise alone**; without it, the noise is estimated from the
noisy speech. Press **Enhance**, listen, and look at what was removed. The page runs on this machine and sends nothing
anywhere."""


@dataclass(frozen=True)
class Demo:
    """What to play with"""

    ckpt: list[str] = positional(default_factory=list)
    """checkpoints or model folders to choose from, beside the models that come along"""
    port: Annotated[int, Bounds(1, 65535)] = 7860
    """of the page, http://127.0.0.1:PORT"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the networks run"""
    open: bool = False
    """open the page in the browser"""


class Trial(NamedTuple):
    """waveforms by name, noisy, enhanced and removed, each [N] or [C, N] at `rate`; words: how it was done."""

    waveforms: dict[str, np.ndarray]
    rate: int
    words: str


def main() -> None:
    settings = read_command_line(Demo, __doc__)
    models = {**released_models(), **{name: find_model(name) for name in settings.ckpt}}
    with tempfile.TemporaryDirectory(prefix="sgmse-demo") as folder:
        # gradio keeps what is uploaded, recorded and returned where this says
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = make_page({name: str(path) for name, path in models.items()}, settings.device, Path(folder))
        print(f"The page is at http://127.0.0.1:{settings.port}; Ctrl+C ends it.", flush=True)
        launch(page, settings.port, inbrowser=settings.open)


def launch(page: Any, port: int, **options: Any) -> None:
    """Serve the page to this machine alone until the process is interrupted."""
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            allowed_paths=[str(embedded_dir())],
            **options,
        )
    except OSError:
        raise UserError(f"--port {port}: is in use; choose another one") from None


@lru_cache(maxsize=4)
def load_model(path: str, device: str) -> Any:
    from sgmse.model.enhancer import Enhancer  # torch takes seconds to load, which --help need not wait for

    return Enhancer.from_checkpoint(path, device)


def try_out(model: Any, noisy_path: Path, noise_path: Path | None, scale: float, steps: int) -> Trial:
    """Enhance one recording, with a recording of the noise or with an estimate of it.

    Args:
        model: an `Enhancer`; one without encoder takes neither reference nor scale.
        scale: w in u + w (c − u). steps: of the sampler.
    """
    from sgmse.enhancement.lookup import open_files
    from sgmse.settings.checks import check_sampler

    rate = audio.info(noisy_path).sample_rate
    noisy = audio.read(noisy_path, None, mono=False)
    model = copy.copy(model)  # shares the weights, not the sampler
    model.sampler = replace(model.sampler, N=steps)
    check_sampler(model.sampler, model.objective.name)
    reference: Any = None
    reference_rate, source = None, "the model takes none"
    if model.encoder is not None and noise_path is not None:
        reference, source = str(noise_path), "the recording of the noise"
    elif model.encoder is not None:
        reference_rate = model.settings["sample_rate"]
        test_set = open_files([noisy_path], "estimated")
        found = test_set.reference(test_set.items[0], "estimated", reference_rate)
        source = f"estimated from the noisy recording ({found.source})"
        is_usable = found.waveform is not None and len(found.waveform) >= model.settings["n_fft"]
        reference = found.waveform if is_usable else None
    begin = time.perf_counter()
    enhanced = model.enhance(noisy, rate, reference, reference_rate, scale if model.encoder is not None else 1.0)
    seconds, sound_s = time.perf_counter() - begin, noisy.shape[-1] / rate
    words = f"reference: {source}; {seconds:.1f} s for {sound_s:.1f} s of sound"
    return Trial({"noisy": noisy, "enhanced": enhanced, "removed": noisy - enhanced}, rate, words)


def write_trial(trial: Trial, folder: Path) -> list[str]:
    """Write enhanced.wav, removed.wav and spectrograms.png; their paths, in this order.

    Files keep their level: gradio itself would bring each waveform to full scale.
    """
    from sgmse.common.files import save_figure
    from sgmse.evaluation.figures import side_by_side

    paths = {name: folder / f"{name}.wav" for name in ("enhanced", "removed")}
    for name, path in paths.items():
        audio.write(path, trial.waveforms[name], trial.rate)
    mono = {name: np.atleast_2d(waveform).mean(axis=0) for name, waveform in trial.waveforms.items()}
    picture = folder / "spectrograms.png"
    save_figure(side_by_side(mono, trial.rate), picture)
    return [*map(str, paths.values()), str(picture)]


def make_page(models: dict[str, str], device: str, folder: Path) -> Any:
    """The page as gradio's Blocks. models: paths by name. folder: of what it makes."""
    gradio = _import_gradio()
    numbers = count()

    def enhance(name: str, noisy: str | None, noise: str | None, scale: float, steps: int) -> list[str]:
        if noisy is None:
            raise gradio.Error("Record noisy speech first, or drop a file.", print_exception=False)
        try:
            model = load_model(models[name], device)
            trial = try_out(model, Path(noisy), None if noise is None else Path(noise), scale, int(steps))
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        return [*write_trial(trial, folder / f"trial{next(numbers)}"), trial.words]

    def describe(name: str) -> list[Any]:
        model = load_model(models[name], device)
        takes_reference = model.encoder is not None
        return [
            gradio.Slider(value=1.0, interactive=takes_reference and model.cond_drop_prob > 0),
            gradio.Slider(value=model.sampler.N),
            gradio.Audio(label="noise alone (optional)" if takes_reference else "the model takes no noise"),
        ]

    with gradio.Blocks(title="sgmse", analytics_enabled=False, fill_width=True) as page:
        _lay_out(gradio, page, list(models), enhance, describe)
    return page


def _lay_out(
    gradio: Any, page: Any, models: list[str], enhance: Callable[..., Any], describe: Callable[..., Any]
) -> None:
    """Inputs at the left, results at the right; called in the context of the page."""
    gradio.Markdown(_INTRODUCTION)
    noisy, noise = (
        gradio.Audio(type="filepath", label=label, elem_id=name, buttons=[], render=False)
        for name, label in (("noisy", "noisy speech"), ("noise", "noise alone (optional)"))
    )
    _add_examples(gradio, noisy, noise)
    with gradio.Row():
        with gradio.Column(scale=2):
            noisy.render()
            noise.render()
            model = gradio.Dropdown(models, value=models[0], label="model")
            scale = gradio.Slider(0, MAX_SCALE, 1.0, step=0.1, label="w: how hard the noise is followed")
            steps = gradio.Slider(1, MAX_STEPS, 1, step=1, label="steps of the sampler")
            button = gradio.Button("Enhance", variant="primary", elem_id="enhance")
        with gradio.Column(scale=3):
            enhanced = gradio.Audio(label="enhanced", elem_id="enhanced", interactive=False, buttons=["download"])
            removed = gradio.Audio(
                label="removed (noisy − enhanced)", elem_id="removed", interactive=False, buttons=["download"]
            )
            picture = gradio.Image(
                show_label=False, elem_id="picture", interactive=False, buttons=["download", "fullscreen"]
            )
            words = gradio.Textbox(label="how", elem_id="words", interactive=False, lines=2)
    button.click(enhance, [model, noisy, noise, scale, steps], [enhanced, removed, picture, words])
    gradio.on([page.load, model.change], describe, model, [scale, steps, noise], show_progress="hidden")


def _add_examples(gradio: Any, noisy: Any, noise: Any) -> None:
    """Buttons that fill both inputs with files of the embedded test set."""
    test_set = embedded_dir() / "test"
    rows = read_rows(test_set)[:_EXAMPLES]
    examples = [[str(test_set / part / f"{row['id']}.flac") for part in ("noisy", "ref")] for row in rows]
    labels = [f"{row['kind']} noise at {row['snr_db']} dB" for row in rows]
    title = "examples: computed voices"
    gradio.Examples(examples, [noisy, noise], label=title, example_labels=labels, cache_examples=False)


def _import_gradio() -> Any:
    """gradio, which then counts no visits."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise UserError("the page needs gradio; run `pip install gradio`") from None
    return gradio


command = partial(run, main)
