"""Results by digest: what was computed once is read again."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from .record import Record
from .share import Share
from .states import States


class Store:
    """A folder with one subfolder a digest: `record.nc`, and `states.safetensors` where parameters are kept.

    A subfolder appears by one atomic rename, so that a partial result is never read and two processes that
    compute the same thing do not disturb each other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @staticmethod
    def default() -> Store:
        """$REPRISE_CACHE, else _build/cache of the book's checkout, else ~/.cache/reprise/results."""
        if os.environ.get("REPRISE_CACHE"):
            return Store(Path(os.environ["REPRISE_CACHE"]))
        for folder in (Path.cwd(), *Path.cwd().parents):
            if (folder / "_toc.yml").exists():
                return Store(folder / "_build" / "cache")
        return Store(Path.home() / ".cache" / "reprise" / "results")

    def has(self, digest: str) -> bool:
        return (self.folder / digest / "record.nc").exists()

    def load(self, digest: str) -> tuple[Record, States | None]:
        """The record and, where kept, the states of a digest that the store has."""
        folder = self.folder / digest
        states = folder / "states.safetensors"
        return Record.load(folder / "record.nc"), States.load(states) if states.exists() else None

    def save(self, digest: str, record: Record, states: States | None = None) -> None:
        """Keep a result under its digest."""
        partial = self.folder / f"{digest}.{uuid.uuid4().hex}.partial"  # numbers of processes may agree
        partial.mkdir(parents=True)
        record.save(partial / "record.nc")
        if states is not None:
            states.save(partial / "states.safetensors")
        try:
            os.replace(partial, self.folder / digest)
        except OSError:  # another process was first
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(self._shared(digest), ignore_errors=True)

    def working_file(self, digest: str) -> Path:
        """Where the checkpoint of an unfinished computation lies."""
        return self.folder / "unfinished" / digest

    def share(self, digest: str, pieces: int) -> Share:
        """What jobs use that share an unfinished computation, in at least so many pieces."""
        return Share(self._shared(digest), pieces, self.folder / digest / "record.nc")

    def _shared(self, digest: str) -> Path:
        return self.folder / "unfinished" / f"{digest}.shared"
