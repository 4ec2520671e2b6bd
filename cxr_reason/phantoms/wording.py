"""Reports on phantoms, worded from `wording.toml`, and what they say, noted by the one who wrote them.

A report isn't the truth. It is silent about some of what is drawn and most of what isn't, hedges what is faint (and
sometimes what is nothing), limits its denials, and now and then contradicts itself, as real ones do; what the film
shows is `disease.truth`. Nothing here asks the engine how it reads.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from numpy.random import Generator

from cxr_reason.phantoms.anatomy import Shot
from cxr_reason.phantoms.disease import BORDERLINE, FLAT, LOBES, ZONES, Drawn

TABLES: dict[str, dict[str, Any]] = tomllib.loads(
    files(__package__).joinpath("wording.toml").read_text(encoding="utf-8")
)
FINDINGS: dict[str, dict[str, Any]] = TABLES["findings"]
SHARED: dict[str, list[str]] = TABLES["shared"]

STYLES = {"headed": 0.45, "prose": 0.25, "terse": 0.2, "dictated": 0.1}
ORDER = (
    *("endotracheal tube", "enteric tube", "central venous catheter", "chest tube", "pacemaker", "sternotomy wires"),
    *("low lung volumes", "cardiomegaly", "mediastinal shift", "pulmonary edema", "consolidation", "lobar collapse"),
    *("lung nodule", "lung mass", "atelectasis", "pleural effusion", "pneumothorax", "rib fracture"),
)
UNSOUND = {
    "lungs": {"consolidation", "lung nodule", "lung mass", "atelectasis", "lobar collapse", "pulmonary edema"},
    "mediastinum": {"mediastinal shift", "lobar collapse", "pleural effusion"},
    "bones": {"rib fracture"},
}
"""With which findings a region isn't called normal."""
IMAGINABLE = ("consolidation", "lung nodule", "lung mass", "pleural effusion", "pneumothorax", "pulmonary edema")
SILENT = {"low lung volumes": 0.3, "sternotomy wires": 0.3, "rib fracture": 0.18, "atelectasis": 0.12, "pacemaker": 0.1}
"""How often something that is there isn't told; of others, one in twenty."""
DENIED = {
    "pleural effusion": 0.72,
    "pneumothorax": 0.7,
    "consolidation": 0.55,
    "cardiomegaly": 0.7,
    "pulmonary edema": 0.3,
    "rib fracture": 0.1,
    "lung nodule": 0.08,
    "lung mass": 0.05,
    "mediastinal shift": 0.06,
    "lobar collapse": 0.03,
    "low lung volumes": 0.04,
}
"""How often something that isn't there is denied by name."""
LIMITED, HEDGED, IMAGINED, CONTRADICTED = 0.16, 0.07, 0.07, 0.1
"""How often a denial is limited, a finding is hedged (faint ones more often), a report hedges about what isn't
there, and one with an impression contradicts itself, where it can."""
_MARK = re.compile(r"\s*\|\s*([\w ]*)(?:=(\w+))?$")


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence and what it says."""

    text: str
    told: tuple[dict[str, Any], ...] = ()
    name: str = ""
    """The finding that it speaks of, or the region."""
    state: str = ""
    """The list of `wording.toml` that it comes from."""
    finding: Drawn | None = None


class Teller:
    """Writes one report on a film. `gone` is what the film before showed and this one doesn't."""

    def __init__(
        self, rng: Generator, shot: Shot, findings: Sequence[Drawn], gone: Sequence[Drawn], *, first: bool
    ) -> None:
        self._rng = rng
        self._shot = shot
        self._findings = list(findings)
        self._gone = list(gone)
        self._first = first

    def report(self) -> tuple[str, list[dict[str, Any]]]:
        """The report, and what it says: a list in the manner of a record's `findings`.

        Each has `name`, `status` and, where told, `side`, `severity` and `change`; `bound` is true where a denial is
        limited, `conflict` where the report contradicts itself.
        """
        style = self._weighed(STYLES)
        body = self._body()
        closing = self._closing(body) if style == "headed" else []
        if style == "headed" and self._rng.random() < CONTRADICTED:
            body, closing = self._contradict(body, closing)
        told = _merged([entry for said in (*body, *closing) for entry in said.told])
        return self._written(style, body, closing), told

    # ------------------------------------------------------------------------------------------------------- sentences

    def _body(self) -> list[Said]:
        said = self._positives() + self._negatives()
        order = {name: number for number, name in enumerate(ORDER)}
        if self._rng.random() < 0.4:  # devices last
            order |= {name: number + 100 for name, number in order.items() if number < 6}
        said.sort(key=lambda one: order.get(one.name, 50))
        return said or [Said(self._one(TABLES["normal"]["film"]))]

    def _positives(self) -> list[Said]:
        said: list[Said] = []
        done: set[tuple[str, str]] = set()
        for finding in self._findings:
            if (finding.name, finding.side) in done:
                continue  # of two lobes on one side one is told
            done.add((finding.name, finding.side))
            if self._rng.random() < SILENT.get(finding.name, 0.05):
                continue
            twin = self._twin(finding)
            if twin:
                done.add((twin.name, twin.side))
                said.append(self._say(replace(finding, side="bilateral"), "both"))
            else:
                said.append(self._say(finding, self._state(finding)))
            if finding.tension:
                said.append(self._say(Drawn("mediastinal shift", finding.side), "present"))
        for finding in self._gone:
            known = FINDINGS[finding.name]
            sayable = "resolved" in known or not known.get("plain")
            if sayable and (finding.name, finding.side) not in done and self._rng.random() < 0.75:
                said.append(self._say(finding, "resolved"))
        return said

    def _state(self, finding: Drawn) -> str:
        """How a finding is told that is there."""
        name = finding.name
        if name == "cardiomegaly" and abs(finding.amount - FLAT[self._shot.view]) <= BORDERLINE:
            return "uncertain"
        faint = finding.severity == "mild" or (name == "consolidation" and finding.amount < 0.45)
        hedged = HEDGED * (2.5 if faint else 1)
        if not finding.change and "uncertain" in FINDINGS[name] and self._rng.random() < hedged:
            return "uncertain"
        known = FINDINGS[name]
        if finding.change and (finding.change in known or not known.get("plain")) and self._rng.random() < 0.85:
            return finding.change
        return "present"

    def _twin(self, finding: Drawn) -> Drawn | None:
        """The same on the other side, where both can be told as one."""
        if "both" not in FINDINGS[finding.name] or finding.change:
            return None
        alike = [f for f in self._findings if f.name == finding.name and f.side != finding.side and not f.change]
        return alike[0] if alike and alike[0].severity == finding.severity and self._rng.random() < 0.8 else None

    def _negatives(self) -> list[Said]:
        there = {finding.name for finding in self._findings}
        if any(finding.tension for finding in self._findings):
            there.add("mediastinal shift")
        left = {finding.name for finding in self._gone}
        out = [name for name in DENIED if name not in there | left and self._rng.random() < DENIED[name]]
        if "lung mass" in there and "lung nodule" in out:
            out.remove("lung nodule")
        said = self._imagined(out) if self._rng.random() < IMAGINED else []
        doubted = {one.name for one in said}
        out = [name for name in out if name not in doubted]
        for part, chance in (("lungs", 0.55), ("mediastinum", 0.25), ("bones", 0.2)):
            if not (there | left | doubted) & UNSOUND[part] and self._rng.random() < chance:
                said.append(Said(self._one(TABLES["normal"][part]), name=part))
        if "cardiomegaly" in out:
            out.remove("cardiomegaly")
            absent = {"name": "cardiomegaly", "status": "absent"}
            said.append(Said(self._one(TABLES["normal"]["heart"]), (absent,), "cardiomegaly"))
        return said + self._denials(out) + self._other_side()

    def _denials(self, names: list[str]) -> list[Said]:
        said = []
        joint = [name for name in names if not FINDINGS[name].get("plain") or name in ("lung nodule", "lung mass")]
        joint = [joint[number] for number in self._rng.permutation(len(joint))]
        if len(joint) >= 2 and self._rng.random() < 0.5:
            count = 3 if len(joint) >= 3 and self._rng.random() < 0.4 else 2
            text = self._one(TABLES["joint"]["two" if count == 2 else "three"])
            nouns = [self._one(FINDINGS[name]["nouns"]) for name in joint[:count]]
            told = tuple({"name": name, "status": "absent"} for name in joint[:count])
            said.append(Said(text.format(**dict(zip("abc", nouns, strict=False))), told, joint[0]))
            names = [name for name in names if name not in joint[:count]]
        for name in names:
            bounded = "bounded" in FINDINGS[name] and self._rng.random() < LIMITED
            said.append(self._say(Drawn(name), "bounded" if bounded else "absent"))
        return said

    def _other_side(self) -> list[Said]:
        """That the side opposite to a finding hasn't got it."""
        for finding in self._findings:
            alone = not any(f.name == finding.name and f.side != finding.side for f in (*self._findings, *self._gone))
            if finding.name in ("pleural effusion", "pneumothorax") and alone and self._rng.random() < 0.12:
                side = "left" if finding.side == "right" else "right"
                noun = self._one(FINDINGS[finding.name]["nouns"])
                text = self._one(["No {side} {noun}.", "No {noun} on the {side}.", "There is no {side} {noun}."])
                told = {"name": finding.name, "status": "absent", "side": side}
                return [Said(text.format(side=side, noun=noun), (told,), finding.name)]
        return []

    def _imagined(self, absent: Sequence[str]) -> list[Said]:
        """A hedge about something that isn't there."""
        names = [name for name in absent if name in IMAGINABLE]
        if not names:
            return []
        name = self._one(names)
        side, lobe = LOBES[int(self._rng.integers(len(LOBES)))]
        if name == "pulmonary edema":
            return [self._say(Drawn(name, amount=0.1), "uncertain")]
        site = lobe if name == "consolidation" else ZONES[int(self._rng.integers(3))]
        return [self._say(Drawn(name, side, site, 0.1, mm=11 if name == "lung nodule" else 35), "uncertain")]

    def _say(self, finding: Drawn, state: str) -> Said:
        """A sentence on `finding` in `state`, and what it says."""
        known = FINDINGS[finding.name]
        sentences = list(known.get(state, ()))
        if not known.get("plain") and state in SHARED:
            sentences += SHARED[state]
        template = self._one(sentences)
        marked = _MARK.search(template)
        text = self._fill(template[: marked.start()] if marked else template, finding)
        entry: dict[str, Any] = {"name": finding.name, "status": _STATUS.get(state, "present")}
        if finding.side and finding.name != "mediastinal shift":
            entry["side"] = finding.side
        if state in ("stable", "worse", "better", "new", "resolved"):
            entry["change"] = state
        if state == "bounded":
            entry["bound"] = True
        degree = finding.heart_severity(self._shot.view) if finding.name == "cardiomegaly" else finding.severity
        if degree and entry["status"] == "present" and re.search(r"\{(size|ly|np)\}", template):
            entry["severity"] = degree
        if marked:
            name, status = marked[1].strip(), marked[2]
            entry |= {"name": name} if name else {}
            entry |= {"status": status} if status else {}
        return Said(text, (entry,), finding.name, state, finding)

    def _fill(self, template: str, finding: Drawn) -> str:
        known = FINDINGS[finding.name]
        heart = finding.name == "cardiomegaly"
        degree = finding.heart_severity(self._shot.view) if heart else finding.severity
        sizes = known.get("sizes", {}).get(degree, [""])
        size = self._one(sizes)
        site = f"{finding.side} {finding.site}".strip()
        # The noun with its place, where it has one: of a lobe, or of a side.
        placed = site if finding.name in ("consolidation", "lobar collapse") else finding.side
        noun = f"{placed} {self._one(known['nouns'])}".strip()
        sized = f"{size} {noun}".strip()
        article = known["article"]
        words = {
            "n": noun,
            "np": f"{'an' if sized[0] in 'aeiou' else 'a'} {sized}" if article else sized,
            "new": "a new" if article else "new",
            "size": size,
            "ly": f"{size}ly" if size else "",
            "side": finding.side,
            "away": "left" if finding.side == "right" else "right",
            "lobe": site,
            "zone": site if self._rng.random() < 0.7 or not site.endswith("lung") else f"{site} zone",
            "mm": self._one([f"{finding.mm:.0f} mm", f"{finding.mm / 10:.1f} cm"]),
            "pole": finding.site,
            "tip": self._tip(finding),
            "vein": self._one(["IJ", "internal jugular"] if finding.side == "right" else ["subclavian"]),
        }
        text = re.sub(r" +", " ", template.format(**words)).strip()
        return text[0].upper() + text[1:]

    def _tip(self, finding: Drawn) -> str:
        known = FINDINGS[finding.name]
        if finding.name == "endotracheal tube":
            place = "bronchus" if finding.mm < 0 else "low" if finding.mm < 14 else "high"
        elif finding.name == "central venous catheter":
            place = "high" if finding.mm < 28 else "low" if finding.mm < 48 else "atrium"
        else:
            return ""
        return str(self._one(known[place])).format(cm=f"{round(finding.mm / 5) / 2:g}")

    # ---------------------------------------------------------------------------------------------------- the whole

    def _closing(self, body: Sequence[Said]) -> list[Said]:
        """The impression: the most important of what has been said, in other words, or that nothing is the matter."""
        told = [said for said in body if said.finding and said.told[0]["status"] != "absent"]
        told += [said for said in body if said.finding and said.state == "resolved"]
        lines = [
            self._say(said.finding, said.state)
            for said in [said for said in told if said.name not in QUIET][:3]
            if said.finding
        ]
        if not told and not self._findings:
            return [Said(self._one(TABLES["normal"]["film"]))]
        return lines

    def _contradict(self, body: list[Said], closing: list[Said]) -> tuple[list[Said], list[Said]]:
        """Deny above what the impression says."""
        for number, said in enumerate(body):
            if len(said.told) != 1 or said.name not in ("pleural effusion", "pneumothorax", "consolidation"):
                continue
            same = [line for line in closing if line.name == said.name]
            if said.state != "present" or len(same) != 1 or same[0].told[0]["status"] != "present":
                continue
            denied = self._say(Drawn(said.name), "absent")
            if denied.told[0]["name"] != said.name:
                continue
            told = ({**same[0].told[0], "conflict": True},)
            swapped = [replace(line, told=told) if line is same[0] else line for line in closing]
            return [*body[:number], replace(denied, told=()), *body[number + 1 :]], swapped
        return body, closing

    def _written(self, style: str, body: Sequence[Said], closing: Sequence[Said]) -> str:
        """The sentences as a report in `style`."""
        sentences = [said.text for said in body]
        view = self._one(TABLES["headings"]["AP" if self._shot.portable else "PA"])
        match style:
            case "headed":
                lines = [f"EXAM: {view}"] if self._rng.random() < 0.6 else []
                if self._rng.random() < 0.6:
                    lines.append(f"INDICATION: {self._one(TABLES['headings']['indications'])}")
                if not self._first or self._rng.random() < 0.4:
                    lines.append(f"COMPARISON: {self._one(TABLES['headings']['none' if self._first else 'prior'])}")
                lines.append(f"FINDINGS: {' '.join(sentences)}")
                if closing:
                    numbered = len(closing) > 1 and self._rng.random() < 0.5
                    texts = [f"{n}. {c.text}" if numbered else c.text for n, c in enumerate(closing, 1)]
                    lines.append(f"IMPRESSION: {' '.join(texts)}")
                return "\n".join(lines)
            case "dictated":
                return f"{view} {' '.join(sentences)}"
            case "terse":
                return "\n".join(sentences)
        return " ".join(sentences)

    def _one(self, choices: Sequence[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]

    def _weighed(self, shares: dict[str, float]) -> str:
        roll = self._rng.random()
        for name, share in shares.items():
            roll -= share
            if roll < 0:
                return name
        return next(iter(shares))


_STATUS = {"absent": "absent", "bounded": "absent", "resolved": "absent", "uncertain": "uncertain"}
QUIET = (
    "endotracheal tube",
    "enteric tube",
    "central venous catheter",
    "pacemaker",
    "chest tube",
    "sternotomy wires",
    "low lung volumes",
)
"""What an impression leaves out."""


def _merged(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a finding and side: said twice, with what either says of it."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in told:
        merged.setdefault((entry["name"], entry.get("side", "")), {}).update(entry)
    return list(merged.values())
