"""`python -m benchmarks`: check the contenders against each other, time them, print and keep the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

import reprise
from reprise.device import name as device_name

from .floor import floor, flops_of_step
from .report import markdown, reach
from .runner import CONTENDERS, compare
from .workloads import WORKLOADS

FOLDER = Path(__file__).resolve().parent.parent / "data" / "benchmarks"
SERIES = {"W0": (1, 4, 16, 64, 256, 1024), "W1": (1, 4, 16, 64)}
SERIES_CONTENDERS = ("loop", "vmap", "jax-vmap", "flat", "workers")


def chosen(text: str, allowed: object, what: str) -> list[str]:
    names = text.split(",")
    unknown = [n for n in names if n not in allowed]
    if unknown:
        raise SystemExit(f"benchmarks: no {what} {unknown[0]}; there are {', '.join(allowed)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="such as W0,W3")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--series", action="store_true", help="also time against the number of members")
    options = parser.parse_args()
    workloads = chosen(options.workloads, WORKLOADS, "workload")
    contenders = chosen(options.contenders, CONTENDERS, "contender")
    if find_spec("jax") is None:
        print('JAX is not installed (pip install "reprise[bench]"): its rows are left out')
        contenders = [c for c in contenders if not c.startswith("jax")]
    settings = {"seconds": options.seconds, "repetitions": options.repetitions, "device": options.device}
    place = torch.device(options.device)
    found = {
        "device": device_name(place),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "reprise": reprise.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "floor": floor(options.device),
        "workloads": {},
        "series": {},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', found['device'].lower()).strip('-')}-{os.cpu_count()}.json"

    def keep() -> None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(found), encoding="utf-8")

    for name in workloads:
        print(f"{name}: {WORKLOADS[name].title}, {WORKLOADS[name].members} members", flush=True)
        found["workloads"][name] = compare(name, contenders, **settings)
        if WORKLOADS[name].kind == "train":
            found["workloads"][name]["flops"] = flops_of_step(WORKLOADS[name], WORKLOADS[name].members)
        keep()
    if options.series:
        for name in (n for n in workloads if n in SERIES):
            for members in SERIES[name]:
                fast = [c for c in SERIES_CONTENDERS if c in contenders]
                found["series"].setdefault(name, []).append(compare(name, fast, members, **settings))
        keep()
    print(f"\n{markdown(found)}")
    print(*reach(found), f"kept as {path}", sep="\n")


if __name__ == "__main__":
    main()
