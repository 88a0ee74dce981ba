"""Twelve kinds of synthesised sound: half a second at 4 kHz, each drawn anew by a generator."""

from __future__ import annotations

import numpy as np

RATE_HZ = 4000
SAMPLES = 2048
KINDS = (
    "silence",
    "tone",
    "two_tones",
    "chirp_up",
    "chirp_down",
    "siren",
    "tremolo",
    "busy",
    "arpeggio_up",
    "arpeggio_down",
    "trill",
    "clicks",
)


def draw(kind: int, rng: np.random.Generator) -> np.ndarray:
    """One sound of `KINDS[kind]` with random pitch, loudness, onset and noise: (2048,) in -1..1,
    in steps of 1/128."""
    t = np.arange(SAMPLES) / RATE_HZ
    span_s = SAMPLES / RATE_HZ
    base_hz = rng.uniform(250, 700)
    name = KINDS[kind]
    if name == "silence":
        wave = np.zeros(SAMPLES)
    elif name == "clicks":
        wave = np.zeros(SAMPLES)
        wave[rng.integers(0, SAMPLES // 8) :: int(rng.integers(250, 450))] = 3.0
        wave = np.convolve(wave, np.exp(-np.arange(40) / 8) * np.cos(np.arange(40)), "same")
    elif name == "two_tones":
        wave = 0.5 * (_tone(base_hz, t) + _tone(base_hz * rng.uniform(1.6, 2.2), t))
    else:
        wave = _sweep(_pitch_hz(name, base_hz, t / span_s, rng))
        if name == "tremolo":
            wave *= 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(10, 18) * t)
        elif name == "busy":
            wave *= np.sin(2 * np.pi * rng.uniform(5, 8) * t + rng.uniform(0, 6)) > 0
    noisy = rng.uniform(0.25, 0.9) * wave + rng.normal(0, rng.uniform(0.02, 0.3), SAMPLES)
    return (np.round(noisy.clip(-1, 127 / 128) * 128) / 128).astype(np.float32)


def data_set(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N, 1, 2048) sounds and (N,) kinds, the kinds equally frequent."""
    kinds = np.arange(count) % len(KINDS)
    return np.stack([draw(int(k), rng)[None] for k in kinds]), kinds.astype(np.int64)


def _pitch_hz(name: str, base: float, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frequency over relative time `u` in 0..1."""
    ratio = rng.uniform(1.7, 2.4)
    if name in ("chirp_up", "chirp_down"):
        line = u if name == "chirp_up" else 1 - u
        return base * ratio**line
    if name in ("arpeggio_up", "arpeggio_down"):
        steps = np.minimum((u * 4).astype(int), 3)
        return base * ratio ** ((steps if name == "arpeggio_up" else 3 - steps) / 3)
    if name == "siren":
        return base * (1 + 0.35 * np.sin(2 * np.pi * (rng.uniform(1.5, 3) * u + rng.uniform())))
    if name == "trill":
        return np.where((u * rng.uniform(14, 22)).astype(int) % 2 == 0, base, base * 1.3)
    return np.full_like(u, base)


def _tone(hz: float, t: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * hz * t)


def _sweep(pitch_hz: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
