"""Studies: a made-up patient, a film, what is drawn on it and the report, each found by its seed and number alone.

Of every five studies three are single and two are one patient's, some days apart; so any study can be made without
those before it. Patients are dealt to the splits seven, one and two in ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_reason.phantoms import film, wording
from cxr_reason.phantoms.anatomy import Body, Shot, again, body, shot
from cxr_reason.phantoms.disease import Drawn, followed, patient_findings, truth

SPLITS = ("train", "train", "train", "validate", "train", "test", "train", "train", "test", "train")
SIZE = 224
BEDSIDE = 0.36
"""Share of the patients who lie in bed."""
_SINGLE = 3  # of the five studies of a block


@dataclass(frozen=True, slots=True)
class Case:
    """A study without its pixels: cheap to make, so that one can choose by what is true."""

    seed: int
    index: int
    study_id: str
    patient_id: str
    prior_study_id: str | None
    study_time: str
    split: str
    sex: str
    age: int
    view: str
    portable: bool
    report: str
    truth: list[dict[str, Any]]
    """What the film shows (`disease.truth`)."""
    told: list[dict[str, Any]]
    """What the report says, by the one who wrote it (`wording.Teller`)."""
    body: Body
    shot: Shot
    findings: tuple[Drawn, ...]

    def film(self, size: int = SIZE) -> NDArray[np.uint8]:
        """The film, (size, size) grey levels."""
        return film.draw(self.body, self.shot, self.findings, rng=_rng(self.seed, 2, self.index), size=size)


@dataclass(frozen=True, slots=True)
class Study(Case):
    """A case with its film."""

    image: NDArray[np.uint8]
    """(size, size), grey, air black."""


def study(seed: int, index: int, *, size: int = SIZE) -> Study:
    """Study number `index` of the world `seed`, with its film of `size` pixels a side."""
    made = case(seed, index)
    return Study(**{field.name: getattr(made, field.name) for field in fields(made)}, image=made.film(size))


def case(seed: int, index: int) -> Case:
    """Study number `index` of the world `seed` without its film. The same arguments give the same case everywhere."""
    block, place = divmod(index, _SINGLE + 2)
    patient = block * (_SINGLE + 1) + min(place, _SINGLE)
    follow_up = place > _SINGLE
    rng = _rng(seed, 0, patient)
    person = body(rng)
    bedside = rng.random() < BEDSIDE
    taken = _time(rng)
    view = "AP" if bedside else "PA"
    findings = patient_findings(rng, view=view)
    gone: list[Drawn] = []
    if follow_up:
        taken += timedelta(hours=int(rng.integers(9, 24 * (6 if bedside else 40))))
        findings, gone = followed(rng, findings, view=view)
    rng = _rng(seed, 1, index)
    shallow = any(finding.name == "low lung volumes" for finding in findings)
    if follow_up:
        person = again(rng, person)
    exposed = shot(rng, person, bedside=bedside, shallow=shallow)
    teller = wording.Teller(rng, exposed, findings, gone, first=not follow_up)
    report, told = teller.report()
    return Case(
        seed=seed,
        index=index,
        study_id=f"S{index:06d}",
        patient_id=f"P{patient:06d}",
        prior_study_id=f"S{index - 1:06d}" if follow_up else None,
        study_time=taken.isoformat(timespec="minutes"),
        split=SPLITS[patient % len(SPLITS)],
        sex=person.sex,
        age=person.age,
        view=view,
        portable=bedside,
        report=report,
        truth=truth(findings, gone, view=view),
        told=told,
        body=person,
        shot=exposed,
        findings=tuple(findings),
    )


def cases(seed: int, count: int) -> Iterator[Case]:
    """The first `count` cases of the world `seed`."""
    return (case(seed, index) for index in range(count))


def blank(size: int = SIZE) -> NDArray[np.uint8]:
    """A film that nothing was exposed on, in an even middle grey: what a model gets that must not see."""
    return np.full((size, size), 128, np.uint8)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([part % 2**64 for part in key])


def _time(rng: np.random.Generator) -> datetime:
    return datetime(2021, 1, 1) + timedelta(minutes=int(rng.integers(0, 3 * 365 * 24 * 60)))
