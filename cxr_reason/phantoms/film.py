"""A film of a body: what everything takes out of the beam, and how the detector shows it.

The beam crosses a body of water as deep as `healthy.torso` says. Lungs take water away; heart, vessels, fluid and
whatever else is solid take lung away; bone adds. So findings lie over one another as they do on a film: a consolidation
in front fills the lung beside the heart and the border goes, one behind leaves it. Attenuation is summed along the beam
(the logarithm of what arrives), shown between a darkest and a brightest value, and made uneven and noisy at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from cxr_reason.phantoms import devices, healthy, lesions
from cxr_reason.phantoms.anatomy import Body, Shot
from cxr_reason.phantoms.disease import Drawn
from cxr_reason.phantoms.layout import SIDES, Plane, layout
from cxr_reason.phantoms.scene import Scene, scene_of

LUNG = 0.28
"""Density of air-filled lung; 1 is water."""


def draw(body: Body, shot: Shot, findings: Sequence[Drawn], *, rng: Generator, size: int = 224) -> NDArray[np.uint8]:
    """The film as grey levels, (size, size), air black.

    `rng` decides texture and noise; vessels grow from the body's own seed, so that they are the same on another film.
    """
    scene = scene_of(layout(body, shot, findings), shot.field, size, rng)
    return _develop(_attenuation(scene, body, shot, findings), scene, shot, size)


def heart_mask(body: Body, shot: Shot, findings: Sequence[Drawn], *, size: int = 224) -> NDArray[np.bool_]:
    """Where the heart lies in the scene, before the film is tilted; for measuring, as the lungs' of `lung_mask`."""
    scene = scene_of(layout(body, shot, findings), shot.field, size, np.random.default_rng(0))
    return healthy.heart(scene) > 0


def lung_mask(body: Body, shot: Shot, findings: Sequence[Drawn], *, size: int = 224) -> NDArray[np.bool_]:
    """Where there is lung in the scene, behind the heart too."""
    scene = scene_of(layout(body, shot, findings), shot.field, size, np.random.default_rng(0))
    return healthy.lungs(scene)[0] > 0.35


def _attenuation(scene: Scene, body: Body, shot: Shot, findings: Sequence[Drawn]) -> Plane:
    """What is taken out of the beam, in cm of water."""
    plan = scene.plan
    wide = plan.half_width + 6
    where, chest = scene.crop(-wide, wide, plan.apex - 12, max(plan.domes.values()) + 66)
    beam = healthy.torso(scene, body)
    bones = scene.empty()
    bones[where] = healthy.ribs(chest, body, findings)
    healthy.add_spine(scene, bones)
    healthy.add_shoulders(scene, shot, bones)
    beam += bones * np.float32(body.bone)
    beam[where] -= _air(chest, body, findings)
    beam -= healthy.trachea(scene)
    beam -= healthy.stomach(scene, body)
    beam += healthy.soft_tissue(scene, body, plan)
    return beam + devices.tubes(scene, findings)


def _air(scene: Scene, body: Body, findings: Sequence[Drawn]) -> Plane:
    """What the lungs leave in the beam, in cm of water, with all that displaces, fills or veils them."""
    deep, inside = healthy.lungs(scene)
    congestion = max((finding.amount for finding in findings if finding.name == "pulmonary edema"), default=0.0)
    vessels = healthy.vessels(scene, body, congestion)
    front, behind = healthy.mediastinum(scene, body), scene.empty()
    free, lines = scene.empty(), lesions.strands(scene, findings)
    for finding in findings:
        match finding.name:
            case "consolidation":
                filled = lesions.consolidation(scene, finding)
                # In front it fills the lung beside the heart, whose border goes; behind, the diaphragm's does.
                if finding.site in ("middle lobe", "upper lobe"):
                    front = np.maximum(front, filled * np.float32(0.86))
                else:
                    behind = np.maximum(behind, filled * np.float32(0.72))
                    deep *= 1 - np.float32(0.5) * filled
                vessels *= np.clip(1 - filled * np.float32(1.25), 0, 1)
            case "lung nodule" | "lung mass":
                lines += lesions.lump(scene, finding) * np.float32(finding.mm / 10 * 1.1)
            case "pleural effusion":
                fluid = lesions.fluid(scene, finding, inside)
                behind = np.maximum(behind, fluid)
                vessels *= 1 - fluid
            case "pneumothorax":
                out, edge = lesions.pneumothorax(scene, finding, inside)
                vessels *= 1 - out
                free = np.maximum(free, out)
                lines += edge * np.float32(0.85)
                # What is left of the lung holds less air.
                half = scene.columns(SIDES[finding.side])
                shrunk = (1 - out[:, half]) * np.float32(0.34 * finding.amount)
                behind[:, half] = np.maximum(behind[:, half], shrunk)
            case "lobar collapse":
                behind = np.maximum(behind, lesions.collapse(scene, finding))
            case "pulmonary edema":
                haze = lesions.edema(scene, finding)
                behind = np.maximum(behind, haze)
                vessels *= 1 - np.float32(0.35) * np.clip(haze * 2, 0, 1)
    solid = front + behind
    lung = deep * np.clip(1 - solid, 0, 1) * np.float32(body.depth * 0.78)
    texture = 1 + np.float32(0.022) * scene.mottle(46)
    air = lung * (np.float32(1 - LUNG) + np.float32(LUNG * 0.75) * free) * texture
    air -= vessels * np.float32(2.7) * np.clip(deep * 2.2, 0, 1) * np.clip(1 - solid * np.float32(0.8), 0, 1)
    left: Plane = air - lines * np.clip(deep * 3, 0, 1)
    return left


def _develop(beam: Plane, scene: Scene, shot: Shot, size: int) -> NDArray[np.uint8]:
    """Attenuation to grey levels: tilt and position, window, curve, a little sharpening, noise, marker and border."""
    count = len(scene.y)
    # Where the film's pixels lie in the scene (Pillow's affine maps output to input).
    cosine, sine = math.cos(shot.tilt), math.sin(shot.tilt)
    dx, dy = (offset / scene.step for offset in shot.shift)
    half = size / 2
    affine = (
        *(cosine, sine, count / 2 + dx - cosine * half - sine * half),
        *(-sine, cosine, count / 2 + dy + sine * half - cosine * half),
    )
    image = Image.fromarray(beam).transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    picture = np.asarray(image)
    sample = picture[size // 8 : -size // 8 : 3, size // 6 : -size // 6 : 3]
    low, high = np.percentile(sample, (3, 96))
    low, high = low - 4.0 + shot.window[0], high + 4.0 + shot.window[1]
    blurred = np.asarray(image.reduce(max(2, size // 14)).resize((size, size), Image.Resampling.BILINEAR))
    picture = picture + np.float32(0.32) * (picture - blurred)
    shown = np.clip((picture - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    # The shoulder of a film: what is dense all looks alike.
    dark = 1 - shown ** np.float32(1.15 * shot.gamma)
    shown = (1 - dark * dark) * np.float32(240) + np.float32(5)
    noise = scene.rng.standard_normal((size, size), dtype=np.float32)
    shown += noise * np.float32(shot.noise)
    grey: NDArray[np.uint8] = np.clip(shown, 0, 255).astype(np.uint8)
    _mark(grey, shot, size)
    return grey


def _mark(grey: NDArray[np.uint8], shot: Shot, size: int) -> None:
    """The letter L at the patient's left, and the border that the collimator left."""
    edge = round(shot.edge / shot.field * size)
    if edge:
        for border in (grey[:edge], grey[-edge:], grey[:, :edge], grey[:, -edge:]):
            border[...] = 3
    top = edge + max(2, round(size * shot.marker))
    letter = _letter(max(5, size // 24))
    height, width = letter.shape
    place = grey[top : top + height, size - edge - 3 * width : size - edge - 2 * width]
    place[letter] = 245


@lru_cache(maxsize=8)
def _letter(height: int) -> NDArray[np.bool_]:
    letter = np.zeros((height, max(3, height * 2 // 3)), bool)
    stroke = max(1, height // 6)
    letter[:, :stroke] = True
    letter[-stroke:] = True
    return letter
