"""The notebook's one handle: parameters, device, cached results, claims, hero figure and result file."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import device as devices
from . import digest, provenance
from .probes.schedule import Scheduled
from .record import Record
from .share import Joined
from .states import States
from .store import Store
from .sweep import Sweep, Trained, checked_keep, checked_probes

if TYPE_CHECKING:
    from .claims import Claim
    from .verdict_table import ClaimsTable

SCALES = ("quick", "full")


class Chapter:
    """One paper's chapter while its notebook runs.

    slug: the notebook's name; scale: "quick" or "full"; device: "auto", "cpu", "cuda" or "cuda:N"; seed: the
    first of the seeds that are judged (0; calibrate thresholds on 1000 and up). question: one line for the
    gallery. minutes: expected minutes by scale, printed at the start.
    Everything computed through `train`, `map` and `measure` is kept under one digest and read again when
    nothing changed. Raises ValueError naming the parameter.
    """

    def __init__(
        self,
        slug: str,
        *,
        title: str = "",
        question: str = "",
        scale: str = "quick",
        device: str = "auto",
        seed: int = 0,
        minutes: Mapping[str, float] | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
            raise ValueError(f"slug: expected lower-case words joined by hyphens, got {slug!r}")
        if scale not in SCALES:
            raise ValueError(f'scale: expected "quick" or "full", got {scale!r}')
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
        self.slug, self.title, self.question = slug, title, question
        self.scale, self.seed, self.device = scale, seed, devices.resolve(device)
        self.store = Store.default()
        self.jobs = int(os.environ.get("REPRISE_SHARE") or 0)  # set by `reprise run --share`
        self.claims_made: list[Claim] = []
        self.computed: dict[str, dict[str, Any]] = {}
        self._hero: dict[str, str] | None = None
        self._began = time.perf_counter()
        expected = (minutes or {}).get(scale)
        print(
            f"{slug} · {scale} scale · {devices.name(self.device)}"
            + (f" · about {expected:g} min" if expected else "")
        )
        if scale == "full" and self.device.type == "cpu":
            print(
                "No GPU selected: full scale on a CPU takes many hours. "
                "In Colab: Runtime > Change runtime type > GPU."
            )

    @property
    def quick(self) -> bool:
        """Whether this is the quick scale."""
        return self.scale == "quick"

    def seeds(self, n: int) -> list[int]:
        """The n seeds that this run judges, from `seed` on."""
        return list(range(self.seed, self.seed + n))

    # --- computing ---

    def train(
        self,
        name: str,
        sweep: Sweep,
        probes: Sequence[Scheduled] = (),
        keep: Sequence[int] = (),
        **options: Any,
    ) -> Trained:
        """`sweep.train(...)`, kept under its digest. name: what this computation is called in the record."""
        description = sweep.describe(checked_probes(probes), checked_keep(keep))

        def compute(key: str) -> tuple[Record, States | None]:
            share = self.store.share(key, self.jobs) if self.jobs else None
            file = share.folder / "checkpoint" if share else self.store.working_file(key)
            trained = sweep.train(
                probes, keep, self.device, checkpoint=None if self.quick else file, share=share, **options
            )
            return trained.record, trained.states

        record, states = self._kept(name, description, compute)
        if states is None:  # a committed record holds no parameters
            states = States(sweep.axes, {}, {}, digest.sha(description))
        return Trained(sweep, record, states)

    def map(self, name: str, sweep: Sweep, together: Sequence[str] = ()) -> Record:
        """`sweep.map(...)`, kept under its digest."""
        description = "\n".join(
            ["map", digest.describe(sweep.function), digest.describe(sweep._values), repr(together)]
        )
        return self._kept(name, description, lambda key: (sweep.map(together), None))[0]

    def measure(
        self,
        name: str,
        trained: Trained,
        probe: Callable[..., Any],
        step: int | None = None,
        **others: States,
    ) -> Record:
        """`trained.measure(...)`, kept under its digest."""
        parts = ["measure", trained.states.digest, digest.describe(probe), repr(step)]
        parts += [trained.sweep.describe()] + [f"{key}={states.digest}" for key, states in others.items()]
        compute = lambda key: (trained.measure(probe, step, self.device, **others), None)  # noqa: E731
        return self._kept(name, "\n".join(parts), compute)[0]

    def _kept(
        self, name: str, description: str, compute: Callable[[str], tuple[Record, States | None]]
    ) -> tuple[Record, States | None]:
        if not re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", name):
            raise ValueError(f"name: expected lower-case words joined by '-', '_' or '.', got {name!r}")
        if name in self.computed:
            raise ValueError(f"name: {name!r} was already computed in this chapter; names must differ")
        described, library = digest.of(description)
        key = digest.sha(f"{described} {library} {self.device.type}")
        committed = self._committed(name)
        if self.store.has(key):
            record, states = self.store.load(key)
        elif committed is not None and committed.attrs.get("described") == described and not self.quick:
            record, states = committed, None
        else:
            record, states = self._compute(key, described, library, compute)
        self.computed[name] = record.attrs | {"changed": record.attrs.get("library") != library}
        return record, states

    def _compute(
        self, key: str, described: str, library: str, compute: Callable[[str], tuple[Record, States | None]]
    ) -> tuple[Record, States | None]:
        try:
            record, states = compute(key)
        except Joined:
            return self.store.load(key)
        record.attrs.update(
            commit=provenance.commit(),
            versions=provenance.versions(),
            date=provenance.today(),
            peak_mb=round(provenance.peak_memory()),
            scale=self.scale,
            described=described,
            library=library,
            digest=key,
        )
        if record.attrs.get("interrupted"):
            return record, states
        self.store.save(key, record, states)
        # Jobs that share a chapter all go on from the numbers of the first.
        return self.store.load(key) if self.jobs else (record, states)

    def _committed(self, name: str) -> Record | None:
        root = _root()
        path = root / "data" / "records" / self.slug / f"{name}.nc" if root else None
        return Record.load(path) if path is not None and path.exists() else None

    def keep_record(self, name: str, record: Record) -> None:
        """At full scale, and if `reprise run --record` asks for it, write a thin record to data/records/"""
        if self.quick or not os.environ.get("REPRISE_RECORD") or (root := _root()) is None:
            return
        folder = root / "data" / "records" / self.slug
        folder.mkdir(parents=True, exist_ok=True)
        record.save(folder / f"{name}.nc")

    # --- claims ---

    def claim(self, id: str, title: str, **details: Any) -> Claim:
        """Add a `reprise.claims.Claim`; see there for checks, controls, kind and origin."""
        from .claims import Claim

        if id in {claim.id for claim in self.claims_made}:
            raise ValueError(f"claim {id}: was already made in this chapter")
        claim = Claim(id, title, **details)
        self.claims_made.append(claim)
        return claim

    def claims(self) -> ClaimsTable:
        """The table of all claims: what the paper says, what was measured, the threshold, the verdict."""
        from .claims import claims_table

        return claims_table(self.claims_made)

    # --- what the book reads ---

    def hero(self, figure: Any, alt: str) -> Any:
        """Mark a matplotlib figure as the chapter's picture in the gallery; alt says what one should see."""
        if len(alt) < 20:
            raise ValueError("alt: say in a sentence what the figure shows")
        self._hero = {"file": "hero.png", "alt": alt}
        if self._output:
            figure.savefig(self._output / "hero.png", dpi=160, transparent=True, bbox_inches="tight")
        return figure

    @property
    def _output(self) -> Path | None:
        folder = os.environ.get("REPRISE_OUTPUT")
        return Path(folder) if folder else None

    @property
    def cpu_seconds(self) -> float:
        """CPU-seconds of all computations of this chapter, those read from the cache included."""
        return float(sum(attrs.get("cpu_seconds", 0.0) for attrs in self.computed.values()))

    @property
    def peak_mb(self) -> int:
        """Peak memory in megabytes: of this process, and of those that computed what came from the cache."""
        found = [attrs.get("peak_mb", 0) for attrs in self.computed.values()]
        return round(max([*found, provenance.peak_memory()]))

    def cost(self) -> str:
        """One line: device, seconds, members, and where the numbers come from."""
        seconds = sum(attrs.get("seconds", 0.0) for attrs in self.computed.values())
        members = sum(int(attrs.get("members", 0)) for attrs in self.computed.values())
        dates = sorted({attrs["date"] for attrs in self.computed.values() if "date" in attrs})
        line = (
            f"{self.scale} scale on {devices.name(self.device)}: {members} members in "
            f"{len(self.computed)} computations, {self.cpu_seconds:.0f} CPU-seconds "
            f"({seconds:.0f} s on the clock), computed {' and '.join(dates)}."
        )
        if any(attrs["changed"] for attrs in self.computed.values()):
            line += " The library has changed since the record was made."
        return line

    def finish(self, expected: Mapping[str, str]) -> None:
        """Check the verdicts against those this chapter commits to, and write the result file for the book.

        expected: {claim id: verdict} at quick scale and seed 0. Raises AssertionError when a verdict changed
        (only there: another seed or scale, or a knob changed by `reprise run -p`, is free to differ),
        ValueError when the ids do not agree.
        """
        verdicts = {claim.id: claim.verdict for claim in self.claims_made}
        if set(expected) != set(verdicts):
            raise ValueError(
                f"finish: expected verdicts for {sorted(expected)}, but the claims are {sorted(verdicts)}"
            )
        if self._output:
            self._write(expected)
        changed = {id: (expected[id], now) for id, now in verdicts.items() if now != expected[id]}
        if changed and self.quick and self.seed == 0:
            lines = [f"{id}: expected {was!r}, now {now!r}" for id, (was, now) in changed.items()]
            text = "verdicts changed: " + "; ".join(lines)
            if knobs := os.environ.get("REPRISE_KNOBS"):  # set by `reprise run -p`
                print(f"With another {knobs}, {text}")
            else:
                raise AssertionError(text)

    def _write(self, expected: Mapping[str, str]) -> None:
        result = {
            "slug": self.slug,
            "title": self.title,
            "question": self.question,
            "scale": self.scale,
            "device": str(self.device),
            "device_name": devices.name(self.device),
            "seed": self.seed,
            "date": provenance.today(),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "seconds": round(sum(attrs.get("seconds", 0.0) for attrs in self.computed.values()), 1),
            "peak_mb": self.peak_mb,
            "members": sum(int(attrs.get("members", 0)) for attrs in self.computed.values()),
            "digest": digest.sha(" ".join(str(attrs.get("digest")) for attrs in self.computed.values())),
            "hero": self._hero,
            "claims": [claim.to_dict() for claim in self.claims_made],
            "expected": dict(expected),
            "computations": {name: _plain(attrs) for name, attrs in self.computed.items()},
        }
        partial = self._output / f"result.json.{os.getpid()}"
        partial.write_text(json.dumps(result, indent=1, default=_json))
        shutil.move(partial, self._output / "result.json")


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "device",
        "seconds",
        "cpu_seconds",
        "members",
        "peak_mb",
        "dtype",
        "seeds",
        "date",
        "commit",
        "digest",
        "changed",
    )
    return {name: attrs[name] for name in kept if name in attrs}


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"cannot write a {type(value).__name__} to result.json")


def _root() -> Path | None:
    """The checkout of the book around the current folder, if there is one."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "_toc.yml").exists():
            return folder
    return None
