"""One sweep trained by many jobs: its pieces lie in a folder that all of them see."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import device as devices
from .digest import sha
from .layout import Layout
from .outcomes import load, save
from .shards import Piece, train_here
from .train import Outcome, Run

_ABANDONED = 600.0  # seconds without a touch after which a piece is claimed anew
_TOUCH = 20.0  # seconds between two touches of a claim
_POLL = 1.0  # seconds between two looks at what other jobs do


class Joined(Exception):
    """Another job has joined the pieces: the result stands in the store."""


@dataclass
class Share:
    """A folder where jobs, on one machine or many, share the pieces of one sweep.

    folder: appears with the cut into pieces by one atomic rename. pieces: how many at least, where there are
    so many members. result: the file that stands once a job has joined the pieces.

    A job claims a piece by a file that only one can create, and touches it while it trains. A job that has
    seen no touch for `_ABANDONED` seconds of its own clock claims the piece anew; clocks of two machines are
    never compared. A piece trained twice does no harm. So creating a file and renaming are all that a network
    folder has to do atomically: libraries of file locks ask for more, a lock daemon or clocks that agree.
    """

    folder: Path
    pieces: int
    result: Path
    _touched: dict[Path, tuple[int, float]] = field(default_factory=dict)  # claim: its touch, and when seen

    def cut(self, description: str, make: Callable[[], list]) -> list[list[tuple[int, ...]]]:
        """The indices of every piece's members: as the first job had them from `make`, which plans."""
        if not self.folder.exists():
            cut = json.dumps({"sweep": sha(description), "pieces": make()})
            if self.result.exists():
                raise Joined
            partial = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.partial")
            partial.mkdir(parents=True)
            (partial / "cut.json").write_text(cut)
            try:
                partial.rename(self.folder)
            except OSError:  # another job was first
                shutil.rmtree(partial)
        try:
            cut = json.loads((self.folder / "cut.json").read_text())
        except FileNotFoundError:
            if self.result.exists():
                raise Joined from None
            raise
        if cut["sweep"] != sha(description):
            raise ValueError(f"share: {self.folder} holds the pieces of another sweep")
        return [[tuple(index) for index in piece] for piece in cut["pieces"]]

    def train(
        self, pieces: Sequence[Piece], watch: Callable[[Run], None], report: Callable[[int], None]
    ) -> tuple[dict[tuple[int, ...], Outcome], bool, float, str]:
        """Train the pieces that no other job has claimed, and wait for those of the others.

        Returns the outcomes, whether an interrupt ended it early, the CPU-seconds of the other jobs, and the
        names of all devices. Raises Joined where another job was faster.
        """
        outcomes, about, mine, interrupted = {}, {}, set(), False

        def open_pieces() -> list[int]:
            for number in set(range(len(pieces))) - set(about):
                if (found := self._read(number, pieces[number])) is not None:
                    about[number] = found[1]
                    outcomes.update(found[0])
            report(len(outcomes))
            return [number for number in range(len(pieces)) if number not in about]

        try:
            while (waiting := open_pieces()) and not interrupted:
                if self.result.exists():
                    raise Joined
                claim = next(filter(None, map(self._claim, waiting)), None)
                if claim is None:
                    time.sleep(_POLL)
                    continue
                number = int(claim.name.partition(".")[0])
                mine.add(number)
                found, interrupted = self._train(claim, pieces[number], watch)
                outcomes.update(found)
        except KeyboardInterrupt:
            interrupted = True
        for number in open_pieces():  # some are left after an interrupt
            if pieces[number].members[0].index not in outcomes:
                outcomes.update(pieces[number].run().outcomes())
        names = {each["device"] for each in about.values()} or {devices.name(pieces[0].device)}
        elsewhere = sum(about[number]["cpu_seconds"] for number in set(about) - mine)
        return outcomes, interrupted, elsewhere, " and ".join(sorted(names))

    def _claim(self, number: int) -> Path | None:
        """A new file that says who trains the piece; None while another job does."""
        for turn in itertools.count():
            claim = self.folder / f"{number}.claim.{turn}"
            try:
                claim.touch(exist_ok=False)
                return claim
            except FileExistsError:
                if not self._abandoned(claim):
                    return None
            except FileNotFoundError:  # the folder is gone: the pieces have been joined
                return None

    def _abandoned(self, claim: Path) -> bool:
        try:
            touch = claim.stat().st_mtime_ns
        except FileNotFoundError:  # just freed: next time
            return False
        if self._touched.get(claim, (None,))[0] != touch:
            self._touched[claim] = touch, time.monotonic()
        return time.monotonic() - self._touched[claim][1] > _ABANDONED

    def _train(self, claim: Path, piece: Piece, watch: Callable[[Run], None]) -> tuple[dict, bool]:
        """Train a claimed piece and leave its outcomes, or free the claim if it does not come to its end."""
        touched, before = time.monotonic(), time.process_time()

        def pause(run: Run) -> None:
            nonlocal touched
            if time.monotonic() - touched > _TOUCH:
                touched = time.monotonic()
                with suppress(FileNotFoundError):  # the folder is gone
                    os.utime(claim)
            watch(run)

        complete, number = False, claim.name.partition(".")[0]
        try:
            outcomes, interrupted = train_here([piece], pause)
            if not interrupted:
                cost = {"cpu_seconds": time.process_time() - before, "device": devices.name(piece.device)}
                self._write(number, outcomes, cost)
                complete = True
        finally:
            if not complete:
                for each in self.folder.glob(f"{number}.claim.*"):
                    each.unlink(missing_ok=True)
        return outcomes, interrupted

    def _write(self, number: str, outcomes: dict[tuple[int, ...], Outcome], cost: dict[str, Any]) -> None:
        if self.folder.exists():  # gone if the pieces were joined without this one
            partial = self.folder / f"{number}.{uuid.uuid4().hex}.partial"
            save(partial, outcomes, cost)
            os.replace(partial, self.folder / f"{number}.safetensors")

    def _read(self, number: int, piece: Piece) -> tuple[dict[tuple[int, ...], Outcome], dict] | None:
        """The outcomes of a piece and what they cost, if some job has left them."""
        with suppress(FileNotFoundError):
            layout = Layout.of(piece.members[0].experiment.model)
            return load(self.folder / f"{number}.safetensors", layout)
