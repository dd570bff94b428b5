"""`python -m benchmarks`: check the contenders against each other, time them, print and keep the table.

With --series or --scale those are measured instead of the table. What the file of this machine holds already
stays, if it was measured with the same versions and threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

import reprise
from reprise.device import name as device_name

from .floor import floor, flops_of_step
from .report import markdown, reach
from .runner import CONTENDERS, compare
from .scale import scale
from .workloads import WORKLOADS

FOLDER = Path(__file__).resolve().parent.parent / "data" / "benchmarks"
SERIES = {"W0": (1, 8, 64, 512), "W1": (1, 4, 16, 64)}
SERIES_CONTENDERS = ("loop", "vmap", "jax-vmap", "jax-map", "compiled", "workers")
SHORT = {"seconds": 1.0, "repetitions": 3}  # of the many points of a series, at most


def chosen(text: str, allowed: object, what: str) -> list[str]:
    names = text.split(",")
    unknown = [n for n in names if n not in allowed]
    if unknown:
        raise SystemExit(f"benchmarks: no {what} {unknown[0]}; there are {', '.join(allowed)}")
    return names


def series(name: str, contenders: list[str], seconds: float, **settings: object) -> Iterator[list[dict]]:
    """A workload at growing numbers of members, what is found so far. Who would take longer than a repetition
    for one step of all of them is left out from there."""
    found, left = [], [c for c in SERIES_CONTENDERS if c in contenders]
    for members in SERIES[name]:
        if found:
            rates = found[-1]["contenders"]
            left = [c for c in left if members / statistics.median(rates[c]["rate"]) < seconds]
        if left:
            print(f"{name}: {members} members", flush=True)
            found.append(compare(name, left, members, seconds=seconds, **settings))
            yield found


def kept(path: Path, now: dict) -> dict:
    """What was found before under the same conditions and goes on now, or what there is now alone."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if any(before.get(name) != now[name] for name in ("device", "threads", "instructions", "versions")):
        return now
    first = before["date"].partition(" ")[0]
    return before | now | {"date": now["date"] if first == now["date"] else f"{first} to {now['date']}"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="such as W0,W3")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--series", action="store_true", help="time against the number of members")
    parser.add_argument("--scale", action="store_true", help="ours alone: time and memory against size")
    options = parser.parse_args()
    workloads = chosen(options.workloads, WORKLOADS, "workload")
    contenders = chosen(options.contenders, CONTENDERS, "contender")
    if find_spec("jax") is None:
        print('JAX is not installed (pip install "reprise[bench]"): its rows are left out')
        contenders = [c for c in contenders if not c.startswith("jax")]
    settings = {"seconds": options.seconds, "repetitions": options.repetitions}
    short = {name: min(value, SHORT[name]) for name, value in settings.items()}
    place = torch.device(options.device)
    now = {
        "device": device_name(place),
        "threads": torch.get_num_threads(),
        # machines of one name may differ in this
        "instructions": torch.backends.cpu.get_cpu_capability() if place.type == "cpu" else "",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "reprise": reprise.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    machine = f"{now['device']} {os.cpu_count()} {now['instructions']}".lower()
    path = FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', machine).strip('-')}.json"
    found = {"workloads": {}, "series": {}, "scale": {}} | kept(path, now)
    table = not (options.series or options.scale)
    if table or "floor" not in found:  # the table is compared with what the machine did then
        found["floor"] = floor(options.device)

    def keep() -> None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(markdown(found), encoding="utf-8")

    for name in workloads if table else ():
        print(f"{name}: {WORKLOADS[name].title}, {WORKLOADS[name].members} members", flush=True)
        found["workloads"][name] = compare(name, contenders, device=options.device, **settings)
        # a busy moment must not lower it: the best of several
        again = floor(options.device)
        found["floor"] = {what: max(best, again[what]) for what, best in found["floor"].items()}
        if WORKLOADS[name].kind == "train":
            found["workloads"][name]["flops"] = flops_of_step(WORKLOADS[name], WORKLOADS[name].members)
        keep()
    for name in [n for n in workloads if n in SERIES] if options.series else ():
        for so_far in series(name, contenders, device=options.device, **short):
            found["series"][name] = so_far
            keep()
    if options.scale:
        print("scale: Reprise alone", flush=True)
        found["scale"] = scale(options.device, short["seconds"] / 2, short["repetitions"])
        keep()
    print(f"\n{markdown(found)}")
    print(*reach(found), f"kept as {path}", sep="\n")


if __name__ == "__main__":
    main()
