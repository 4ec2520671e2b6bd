"""What is drawn on a film: findings with side, place and size, how often they come, together, and how they change.

Names are the lexicon's (`radiology/lexicon.toml`). Findings that another would hide are taken out again, so that all
that is called present can be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import Generator

FLAT = {"PA": 0.5, "AP": 0.55}
"""Heart to chest, above which a heart counts as enlarged, by view."""
BORDERLINE = 0.013
"""So near to that, a heart is neither normal nor enlarged."""

DEVICES = (
    *("endotracheal tube", "enteric tube", "central venous catheter", "pacemaker", "chest tube", "sternotomy wires"),
)
NAMES = (
    *("cardiomegaly", "pleural effusion", "pneumothorax", "mediastinal shift", "consolidation", "lung nodule"),
    *("lung mass", "atelectasis", "lobar collapse", "pulmonary edema", "rib fracture", "low lung volumes"),
    *DEVICES,
)
"""All that may be drawn. What of it isn't on a film is known to be absent."""
RATES = {
    "normal": 0.16,
    "cardiomegaly": 0.36,
    "borderline": 0.08,
    "pleural effusion": 0.42,
    "pneumothorax": 0.26,
    "consolidation": 0.34,
    "lung nodule": 0.13,
    "lung mass": 0.07,
    "atelectasis": 0.18,
    "lobar collapse": 0.06,
    "pulmonary edema": 0.18,
    "rib fracture": 0.08,
    "low lung volumes": 0.1,
    "endotracheal tube": 0.36,  # at the bedside only
    "central venous catheter": 0.38,  # elsewhere a fifth of it
    "pacemaker": 0.08,
    "sternotomy wires": 0.1,
}
"""How often each is drawn for a patient who isn't normal; what lies hidden or shares a lobe comes less often."""
LOBES = (
    *(("right", "upper lobe"), ("right", "middle lobe"), ("right", "lower lobe")),
    *(("left", "upper lobe"), ("left", "lower lobe")),
)
ZONES = ("upper lung", "mid lung", "lower lung")
MOVING = ("pleural effusion", "pneumothorax", "consolidation", "atelectasis", "pulmonary edema")
"""What may come, go, grow and shrink in days."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One finding as it is drawn."""

    name: str
    side: str = ""
    site: str = ""
    amount: float = 0.5
    """How much of it, 0 to 1; of cardiomegaly, heart to chest."""
    mm: float = 0.0
    """Size of a lump; height of a tube's tip above the carina, depth of a catheter's tip below it."""
    place: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Where in its region, each in [0, 1]; the third is its shape."""
    change: str = ""
    """Against the film before: new, worse, stable, better; "" on a first film."""
    tension: bool = False

    @property
    def severity(self) -> str:
        """Mild, moderate or severe, "" for what has no degree."""
        limits = GRADES.get(self.name)
        return "" if limits is None else ("mild", "moderate", "severe")[sum(self.amount >= limit for limit in limits)]

    def heart_severity(self, view: str) -> str:
        """The same for a heart on a film of `view`."""
        beyond = self.amount - FLAT[view]
        return "mild" if beyond < 0.055 else "moderate" if beyond < 0.095 else "severe"


GRADES = {
    "pleural effusion": (0.26, 0.56),
    "pneumothorax": (0.22, 0.42),
    "pulmonary edema": (0.38, 0.68),
    "atelectasis": (0.72, 2.0),
}
"""The amounts from which a finding is moderate, and severe."""


def patient_findings(rng: Generator, *, view: str) -> list[Drawn]:
    """What is drawn for a patient seen for the first time on a film of `view`; empty for one who is well."""
    if rng.random() < RATES["normal"]:
        return []
    found = [*_heart(rng, view), *_edema(rng), *_pneumothorax(rng), *_effusions(rng), *_lobes(rng), *_lumps(rng)]
    if rng.random() < RATES["atelectasis"]:
        found += [Drawn("atelectasis", side, "base", rng.random(), place=_placed(rng)) for side in _sides(rng, 0.25)]
    if rng.random() < RATES["rib fracture"]:
        found.append(Drawn("rib fracture", _side(rng), place=_placed(rng)))
    if rng.random() < RATES["low lung volumes"]:
        found.append(Drawn("low lung volumes"))
    return visible([*found, *_devices(rng, found, bedside=view == "AP")])


def _side(rng: Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"


def _sides(rng: Generator, both: float) -> tuple[str, ...]:
    return ("left", "right") if rng.random() < both else (_side(rng),)


def _placed(rng: Generator) -> tuple[float, float, float]:
    x, y, shape = rng.random(3)
    return float(x), float(y), float(shape)


def _heart(rng: Generator, view: str) -> list[Drawn]:
    roll, flat = rng.random(), FLAT[view]
    if roll < RATES["borderline"]:
        return [Drawn("cardiomegaly", amount=flat + rng.uniform(-BORDERLINE, BORDERLINE))]
    if roll < RATES["borderline"] + RATES["cardiomegaly"]:
        return [Drawn("cardiomegaly", amount=flat + BORDERLINE + rng.uniform(0.008, 0.13))]
    return []


def _edema(rng: Generator) -> list[Drawn]:
    if rng.random() >= RATES["pulmonary edema"]:
        return []
    return [Drawn("pulmonary edema", amount=rng.uniform(0.22, 1.0))]


def _effusions(rng: Generator) -> list[Drawn]:
    if rng.random() >= RATES["pleural effusion"]:
        return []
    sides = _sides(rng, 0.3)
    top = 0.4 if len(sides) == 2 else 0.8
    return [Drawn("pleural effusion", side, amount=0.05 + (top - 0.05) * rng.random() ** 1.5) for side in sides]


def _pneumothorax(rng: Generator) -> list[Drawn]:
    if rng.random() >= RATES["pneumothorax"]:
        return []
    amount = rng.uniform(0.1, 0.6)
    return [Drawn("pneumothorax", _side(rng), amount=amount, tension=amount > 0.4 and rng.random() < 0.4)]


def _lobes(rng: Generator) -> list[Drawn]:
    """Lobes that are solid: filled or without air."""
    order = [LOBES[number] for number in rng.permutation(len(LOBES))]
    found = []
    if rng.random() < RATES["consolidation"]:
        for side, site in order[: 2 if rng.random() < 0.18 else 1]:
            found.append(Drawn("consolidation", side, site, rng.uniform(0.25, 1.0), place=_placed(rng)))
    if rng.random() < RATES["lobar collapse"]:
        side, site = order[-1]
        if (side, site) in COLLAPSING:
            found.append(Drawn("lobar collapse", side, site))
    return found


COLLAPSING = {("right", "upper lobe"), ("left", "lower lobe"), ("right", "lower lobe")}


def _lumps(rng: Generator) -> list[Drawn]:
    found = []
    for name, low, high in (("lung nodule", 9, 28), ("lung mass", 32, 68)):
        if rng.random() < RATES[name]:
            zone = ZONES[int(rng.integers(3))]
            found.append(Drawn(name, _side(rng), zone, mm=round(rng.uniform(low, high)), place=_placed(rng)))
    return found[:1]


def _devices(rng: Generator, found: Sequence[Drawn], *, bedside: bool) -> list[Drawn]:
    devices = []
    if bedside and rng.random() < RATES["endotracheal tube"]:
        tip = rng.uniform(-18, 12) if rng.random() < 0.2 else rng.uniform(22, 66)
        devices.append(Drawn("endotracheal tube", mm=round(tip)))
        if rng.random() < 0.7:
            devices.append(Drawn("enteric tube"))
    if rng.random() < RATES["central venous catheter"] * (1 if bedside else 0.2):
        side = "right" if rng.random() < 0.7 else "left"
        devices.append(Drawn("central venous catheter", side, mm=round(rng.uniform(8, 62))))
    if rng.random() < RATES["pacemaker"]:
        devices.append(Drawn("pacemaker", "left" if rng.random() < 0.85 else "right", place=_placed(rng)))
    if rng.random() < RATES["sternotomy wires"]:
        devices.append(Drawn("sternotomy wires"))
    for finding in found:
        drained = {"pneumothorax": 0.45, "pleural effusion": 0.14}.get(finding.name, 0)
        if not finding.tension and rng.random() < drained:
            site = "apex" if finding.name == "pneumothorax" else "base"
            devices.append(Drawn("chest tube", finding.side, site))
            break
    return devices


def visible(findings: Iterable[Drawn]) -> list[Drawn]:
    """`findings` without those that others of them would hide, or can't stand beside."""
    kept: list[Drawn] = []
    for finding in findings:
        if not any(_hides(other, finding) for other in kept):
            kept.append(finding)
    return [finding for finding in kept if not any(_hides(other, finding) for other in kept if other is not finding)]


def _hides(other: Drawn, finding: Drawn) -> bool:
    """Whether `other` leaves nothing to be seen of `finding`."""
    if finding.name in DEVICES or finding.name in ("cardiomegaly", "rib fracture"):
        return False
    if other.name == "pulmonary edema":
        return other.amount > 0.5 and finding.name in ("lung nodule", "atelectasis")
    if not finding.side or other.side != finding.side:
        return False
    low = finding.site in ("lower lobe", "middle lobe", "lower lung", "base")
    match other.name:
        case "pleural effusion":
            return finding.name not in (other.name, "pneumothorax") and (
                other.amount > 0.5 or (other.amount > 0.18 and low)
            )
        case "pneumothorax":
            return finding.name in ("pleural effusion", "lung nodule", "lung mass", "lobar collapse", "consolidation")
        case "consolidation":
            return finding.name in ("lung nodule", "lung mass", "lobar collapse") or (
                finding.name == "atelectasis" and low and other.site != "upper lobe"
            )
        case "lobar collapse":
            return finding.name in ("lung nodule", "lung mass", "atelectasis")
    return False


# ----------------------------------------------------------------------------------------------------------- two films


def followed(rng: Generator, before: Sequence[Drawn], *, view: str) -> tuple[list[Drawn], list[Drawn]]:
    """What is there some days after `before`, each with its `change`, and what has gone."""
    now, gone = [], []
    for finding in before:
        later = _later(rng, finding)
        if later is None:
            gone.append(finding)
        else:
            now.append(later)
    fresh = [replace(finding, change="new") for finding in patient_findings(rng, view=view) if rng.random() < 0.4]
    taken = {(finding.name, finding.side) for finding in (*now, *gone)} | {(f.name, "") for f in before}
    never = ("cardiomegaly", "sternotomy wires", "lung mass", "lung nodule", "low lung volumes")
    fresh = [f for f in fresh if f.name not in never and not {(f.name, f.side), (f.name, "")} & taken]
    if any(finding.name == "enteric tube" for finding in fresh):
        fresh = [
            f for f in fresh if f.name != "enteric tube" or any(g.name == "endotracheal tube" for g in now + fresh)
        ]
    kept = visible([*now, *fresh])
    # What would be hidden now stays away from the second film altogether: that it has gone is what the film shows.
    return kept, [*gone, *(finding for finding in before if not _among(finding, (*kept, *gone)))]


def _among(finding: Drawn, others: Iterable[Drawn]) -> bool:
    return any((o.name, o.side, o.site) == (finding.name, finding.side, finding.site) for o in others)


def _later(rng: Generator, finding: Drawn) -> Drawn | None:
    if finding.name in MOVING:
        roll = rng.random()
        if roll < 0.32:
            return replace(finding, change="stable", amount=min(1.0, finding.amount * rng.uniform(0.97, 1.03)))
        if roll < 0.56 and finding.amount > 0.2:
            return replace(finding, change="better", amount=finding.amount * rng.uniform(0.4, 0.62), tension=False)
        top = {"pneumothorax": 0.62, "pleural effusion": 0.85}.get(finding.name, 1.0)
        if roll < 0.82 and finding.amount * 1.45 < top:
            return replace(finding, change="worse", amount=min(top, finding.amount * rng.uniform(1.5, 2.1)))
        return None
    if finding.name in (
        "endotracheal tube",
        "enteric tube",
        "central venous catheter",
        "chest tube",
        "low lung volumes",
    ):
        return replace(finding, change="stable") if rng.random() < 0.65 else None
    if finding.name == "lobar collapse":
        return replace(finding, change="stable") if rng.random() < 0.5 else None
    return replace(finding, change="stable")


# --------------------------------------------------------------------------------------------------------- what is true


def truth(findings: Sequence[Drawn], gone: Sequence[Drawn] = (), *, view: str) -> list[dict[str, Any]]:
    """What the film shows, in the manner of a record's `findings`: what is present first, then all that is absent.

    Beyond the record's fields, `amount` is how much was drawn in [0, 1], `ratio` heart to chest, `tip_mm` a tube's tip
    above the carina (below it if negative; of a catheter, below the carina). A borderline heart is ``uncertain``.
    """
    entries = [_entry(finding, view) for finding in findings]
    if any(finding.tension for finding in findings):
        entries.append({"name": "mediastinal shift", "status": "present"})
    told = {entry["name"] for entry in entries}
    # A lobe without air is atelectasis, a mass is no nodule but near one, and full edema fills the lung as pneumonia.
    open_names = set()
    if "lobar collapse" in told:
        open_names.add("atelectasis")
    if told & {"lobar collapse", "pleural effusion"}:
        open_names.add("mediastinal shift")
    if "lung mass" in told:
        open_names.add("lung nodule")
    if any(f.name == "pulmonary edema" and f.severity == "severe" for f in findings):
        open_names.add("consolidation")
    left = {(finding.name, finding.side): finding for finding in gone}
    for name in NAMES:
        if name not in told | open_names:
            entry = {"name": name, "status": "absent"}
            if any(key == name for key, _ in left):
                entry["change"] = "resolved"
            entries.append(entry)
    return entries


def _entry(finding: Drawn, view: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": finding.name, "status": "present"}
    if finding.side:
        entry["side"] = finding.side
    if finding.site:
        entry["site"] = finding.site
    if finding.severity:
        entry["severity"] = finding.severity
    if finding.name in ("lung nodule", "lung mass"):
        entry["size_mm"] = finding.mm
    if finding.change:
        entry["change"] = finding.change
    if finding.name == "cardiomegaly":
        entry["ratio"] = round(finding.amount, 3)
        entry["severity"] = finding.heart_severity(view)
        if abs(finding.amount - FLAT[view]) <= BORDERLINE:
            entry["status"] = "uncertain"
    elif finding.severity or finding.name in ("consolidation",):
        entry["amount"] = round(finding.amount, 3)
    elif finding.name in ("endotracheal tube", "central venous catheter"):
        entry["tip_mm"] = finding.mm
    return entry
