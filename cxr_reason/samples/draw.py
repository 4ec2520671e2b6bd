"""A sample of claims that is spread over strata, and its files.

Claims are sampled from strata (by finding, verdict and basis, as asked for), as evenly as they go: each stratum in turn
gives the claim with the smallest hash that is left. So the sample is a function of the seed and the claims alone,
whatever their order and the number of processes.

Memory is that of the sample. With N claims wanted and S strata, about N + S are held: what comes so late in its stratum
that the others together already fill the sample is dropped for good.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from cxr_reason import sheets
from cxr_reason.samples import page
from cxr_reason.sinks import opened
from cxr_reason.streams import stable_hash

Note = dict[str, Any]
"""One claim with all that a reader or the key needs (`sheets`), its `id`, and `rank`, its place in the draw. JSON: a
run that is continued takes it from its journal."""

_rank = itemgetter("rank")


class Sample:
    """`count` claims spread over strata `by` some of their fields; the `runner.Aside` of a run that notes claims."""

    def __init__(self, count: int, *, by: Sequence[str], seed: int = 0) -> None:
        self.count = count
        self.by = tuple(by)
        self.seed = seed
        self.restore(None)

    def restore(self, state: Any) -> None:
        """Go on from a `state`; None is the start."""
        state = state or {"deep": self.count, "sizes": {}, "held": {}}
        self._deep: int = state["deep"]
        """How many of a stratum may still be wanted."""
        self._sizes = Counter[str](state["sizes"])
        self._held: dict[str, list[Note]] = state["held"]
        """By stratum, those with the smallest ranks, in order."""

    def state(self) -> Any:
        return {"deep": self._deep, "sizes": self._sizes, "held": self._held}

    def add(self, notes: Sequence[Note]) -> None:
        for note in notes:
            stratum = " / ".join([str(note[name]) for name in self.by])
            self._sizes[stratum] += 1
            held = self._held.setdefault(stratum, [])
            if len(held) >= self._deep and note["rank"] >= held[-1]["rank"]:
                continue
            place = bisect_left(held, note["rank"], key=_rank)
            if held[place : place + 1] and held[place]["rank"] == note["rank"]:
                continue  # the same claim of the same record, met twice
            held.insert(place, note)
            self._cut()

    def _cut(self) -> None:
        while self._deep > 1 and sum(min(len(held), self._deep - 1) for held in self._held.values()) >= self.count:
            self._deep -= 1
        for held in self._held.values():
            del held[self._deep :]

    @property
    def strata(self) -> int:
        return len(self._sizes)

    def chosen(self) -> list[Note]:
        """The sample, the claims of a report together; each with its `row`, `stratum` and that one's size."""
        drawn = sorted(
            (place, stable_hash(self.seed, stratum), stratum, note)
            for stratum, held in self._held.items()
            for place, note in enumerate(held)
        )[: self.count]
        notes = [note | {"stratum": stratum, "stratum_size": self._sizes[stratum]} for _, _, stratum, note in drawn]
        notes.sort(key=lambda n: (stable_hash(self.seed, n["report_id"]), n["record"], n["step"], n["claim"]))
        return [note | {"row": row} for row, note in enumerate(notes, 1)]


@contextmanager
def files(
    sample: Sample, *, sheet: str | Path | None = None, html: str | Path | None = None, reports: bool = True
) -> Iterator[Callable[[], None]]:
    """Opens the files of a sample and gives what writes it into them, once; before that none of them appears.

    `sheet` is a table for the reader; beside it stands its key, ``NAME.key.csv``, with our verdicts. `html` is a page
    to read by. Without `reports` sheet and page do without report text.
    """
    writers: dict[str | Path, Callable[[list[Note]], bytes]] = {}
    if sheet:
        writers[sheet] = lambda notes: sheets.sheet(notes, reports=reports)
        writers[sheets.key_path(sheet)] = sheets.key
    if html:
        writers[html] = lambda notes: page.page(notes, reports=reports)
    with ExitStack() as stack:
        sinks = {path: stack.enter_context(opened(path)) for path in writers}

        def write() -> None:
            notes = sample.chosen()
            for path, sink in sinks.items():
                sink.write(writers[path](notes))
                sink.commit()

        yield write
