"""Who is filmed, and how: a body and an exposure, each a handful of numbers drawn from their usual ranges.

Lengths are in millimetres in the plane of the film: x to the right of the film (the patient's left) from the midline,
y downwards from the upper edge. Depths, along the beam, are in centimetres of water.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

MAGNIFIED = 1.09
"""How much wider the heart is on an AP film, where it lies further from the detector."""


@dataclass(frozen=True, slots=True)
class Body:
    """What stays the same from film to film."""

    sex: str
    age: int
    half_width: float
    """Of the chest inside the ribs, at its widest."""
    height: float
    """Of the right lung from apex to dome, in full inspiration."""
    fat: float
    """Soft tissue beside the ribs."""
    depth: float
    """Of the chest from front to back, in cm."""
    breast: float
    """Radius of the breast shadows, 0 for none."""
    heart_ratio: float
    """Heart to chest on a PA film in full inspiration, without disease."""
    heart_tilt: float
    """Of the heart's long axis against the horizontal, in radians."""
    knob: float
    """Radius of the aortic knob."""
    rib_step: float
    """From one rib to the next."""
    bone: float
    """Density of the bones, 1 is usual."""
    dome_step: float
    """How much lower the left dome stands."""
    vessels: int
    """Decides the tree of the lung vessels."""


@dataclass(frozen=True, slots=True)
class Shot:
    """How one film was taken."""

    view: str
    portable: bool
    inspiration: float
    """1 is full, 0.6 is poor."""
    tilt: float
    """Of the patient in the plane of the film, in radians."""
    turn: float
    """Rotation about the long axis, as the shift of the front of the chest against the spine."""
    field: float
    """Width of the film at the patient."""
    shift: tuple[float, float]
    window: tuple[float, float]
    """Shifts of the darkest and the brightest shown attenuation, in cm of water."""
    gamma: float
    noise: float
    """Standard deviation in grey levels."""
    scapula: float
    """How far the shoulder blades cover the lungs."""
    marker: float
    """Where the side marker lies, 0 to 1 from the upper edge."""
    edge: float
    """Width of an unexposed border, 0 for none."""

    @property
    def magnification(self) -> float:
        return MAGNIFIED if self.view == "AP" else 1.0


def body(rng: Generator) -> Body:
    """A patient, grown up."""
    sex = "F" if rng.random() < 0.5 else "M"
    age = int(np.clip(rng.normal(58, 18), 18, 94))
    stout = float(np.clip(rng.normal(0.4, 0.28), 0, 1))
    woman = sex == "F"
    return Body(
        sex=sex,
        age=age,
        half_width=rng.normal(126 if woman else 138, 6) + 5 * stout,
        height=rng.normal(205 if woman else 222, 13) - 14 * stout,
        fat=14 + 34 * stout + rng.uniform(-4, 6),
        depth=19.5 + 4.5 * stout + rng.normal(0, 0.8),
        breast=rng.uniform(52, 64) + 16 * stout if woman else 0.0,
        heart_ratio=float(np.clip(rng.normal(0.435 + 0.02 * stout, 0.022), 0.37, 0.472)),
        heart_tilt=rng.normal(0.62 - 0.25 * stout, 0.07),
        knob=rng.uniform(12, 16) + 0.07 * max(0, age - 50),
        rib_step=rng.normal(22.5, 1.2),
        bone=1.1 - 0.004 * max(0, age - 50) + rng.normal(0, 0.05),
        dome_step=rng.uniform(4, 15),
        vessels=int(rng.integers(2**31)),
    )


def shot(rng: Generator, body: Body, *, bedside: bool, shallow: bool = False) -> Shot:
    """A film of `body`: at the `bedside` AP and portable, with less of everything that one can ask of a patient."""
    loose = 1.7 if bedside else 1.0
    return Shot(
        view="AP" if bedside else "PA",
        portable=bedside,
        inspiration=rng.uniform(0.62, 0.72) if shallow else rng.uniform(0.84, 1.0) - (0.04 if bedside else 0.0),
        tilt=float(np.clip(rng.normal(0, 0.02 * loose), -0.07, 0.07)),
        turn=rng.normal(0, 3.0 * loose),
        field=2 * (body.half_width + body.fat) + rng.uniform(24, 62) + (10 if bedside else 0),
        shift=(rng.normal(0, 4 * loose), rng.normal(0, 5 * loose)),
        window=(min(2.0, rng.normal(0, 1.5)), max(-2.5, rng.normal(0, 2.2))),
        gamma=float(np.clip(rng.normal(1.0, 0.16), 0.6, 1.4)),
        noise=rng.uniform(1.2, 3.0) * loose,
        scapula=rng.uniform(14, 34) if bedside else rng.uniform(-14, 8),
        marker=rng.uniform(0.02, 0.1),
        edge=rng.uniform(4, 16) if rng.random() < 0.15 else 0.0,
    )


def again(rng: Generator, body: Body) -> Body:
    """The same patient on another day: nothing of the body has changed but what food and water do."""
    return replace(body, fat=body.fat + rng.normal(0, 1.0), heart_ratio=body.heart_ratio + rng.normal(0, 0.004))
