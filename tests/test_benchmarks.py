"""The benchmark: what its result becomes on the page, and what it leaves out. Nothing is timed here."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import pytest
import torch
from conftest import ROOT, measured

import reprise

sys.path[:0] = [str(ROOT), str(ROOT / "workflow")]
import pages  # noqa: E402

from benchmarks import __main__ as bench  # noqa: E402
from benchmarks import figure, report, scale  # noqa: E402


def row(text: str, title: str, after: str) -> list[str]:
    """The cells of a contender's row in the table under a heading."""
    lines = text[text.index(after) :].splitlines()
    return [
        cell.strip() for line in lines if line.startswith(f"| {title} |") for cell in line.split("|")[2:-1]
    ]


def test_the_tables_show_medians_and_ratios_of_what_was_measured():
    text = report.markdown(measured())
    assert row(text, "Reprise, compiled, one worker a core", "**W0**:")[:3] == [
        "10,000",
        "10.0 (10.0–10.0)",
        "2.00 (2.00–2.00)",
    ]
    # 1e6 operations of 32 members: 5,000 member steps a second are 0.16 % of 1e11 a second
    assert row(text, "JAX jit + vmap + scan", "**W0**:")[3] == "–"
    against = "**W0 against members**"
    assert "| contender | 1 | 16 |" in text
    assert row(text, "PyTorch loop", against) == ["1,000", "–"]
    assert row(text, "JAX, the faster form", against) == ["1,200", "9,000"]


def test_the_sentences_on_scale_follow_the_numbers():
    text = report.markdown(measured())
    assert "from 4 to 16 members of W0 the time of a step follows their number to the power 1.00" in text
    # time as width cubed, parameters as width squared
    assert "at widths up to 128 it follows the number of parameters to the power 1.50" in text
    # 64 MB or more: 16 members of 8e6 bytes, and width 128 of 1.6e8
    assert "the process grew by 1.50 to 1.50 times the prediction (2 points)" in text
    assert "Told that 64 MB are free, it trained 16 members of W0 in 3 batches and grew by 86 MB" in text


def test_the_exponent_is_that_of_the_full_machine():
    sizes = [1, 4, 16, 64, 256]
    power, begin = report.exponent(sizes, [1.0, 1.1, 5.0, 5.0 * 4**0.9, 5.0 * 16**0.9])
    assert power == pytest.approx(0.9) and begin == 16
    assert report.exponent(sizes, [1.0, 1.0, 1.0, 2.0, 5.0]) is None


def test_a_result_becomes_figures_that_say_what_they_show(tmp_path):
    drawn = figure.pictures(measured(), tmp_path, "cpu")
    assert [name for name, _, _ in drawn] == ["cpu-throughput.svg", "cpu-growth.svg"]
    for name, _, caption in drawn:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
        assert caption.endswith(".") and "\n" not in caption
    assert "loop 1,000 at 1, JAX 9,000 at 16, Reprise, workers 20,000 at 16" in drawn[0][1]
    assert "W0 flat ends with slope 1.00" in drawn[1][1] and "up to 156 MB" in drawn[1][1]
    axes = figure.throughput(measured())
    dashed = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[1, 16]]


def test_memory_that_is_not_told_is_left_out(tmp_path):
    found = measured()
    points = [*report.every_point(found["scale"]), found["scale"]["limited"]]
    for point in points:
        point["measured"] = None
    text = report.markdown(found)
    assert "the process grew" not in text and "Told that" not in text and "power 1.00" in text
    assert len(figure.pictures(found, tmp_path, "cpu")) == 2


@pytest.mark.parametrize("series", [True, False])
def test_the_page_has_figures_where_there_is_a_series(tmp_path, series):
    results, pictures = tmp_path / "results", tmp_path / "pictures"
    results.mkdir()
    pictures.mkdir()
    assert pages.speed(results, pictures).startswith("*No measurement is kept yet")
    found = measured(series)
    (results / "cpu.json").write_text(json.dumps(found))
    page = pages.speed(results, pictures)
    assert "| Reprise, compiled, one worker a core |" in page
    shown = ["../_generated/cpu-throughput.svg", "../_generated/cpu-growth.svg"] if series else []
    assert [line.split()[1] for line in page.splitlines() if line.startswith("```{figure}")] == shown
    assert (
        page.count(":class: dark-light")
        == page.count(":alt: ")
        == len(list(pictures.iterdir()))
        == len(shown)
    )


def test_a_page_of_results_from_before_there_were_series(tmp_path):
    found = {name: value for name, value in measured(False).items() if name not in ("series", "scale")}
    (tmp_path / "cpu.json").write_text(json.dumps(found))
    assert "figure" not in pages.speed(tmp_path, tmp_path)


def test_who_needs_longer_than_a_repetition_for_a_step_is_left_out(monkeypatch):
    asked = []

    def compare(name, contenders, members, seconds):
        asked.append((members, list(contenders)))
        rates = {"loop": 100.0, "compiled": 1e6}
        return {"members": members, "contenders": {c: {"rate": [rates[c]]} for c in contenders}}

    monkeypatch.setattr(bench, "compare", compare)
    monkeypatch.setattr(bench, "SERIES", {"W0": (1, 64, 256)})
    *_, found = bench.series("W0", ["loop", "compiled", "eager"], seconds=1.0)
    assert asked == [(1, ["loop", "compiled"]), (64, ["loop", "compiled"]), (256, ["compiled"])]
    assert [result["members"] for result in found] == [1, 64, 256]


def test_a_later_part_joins_what_was_found_under_the_same_conditions(tmp_path):
    path, before = tmp_path / "cpu.json", measured()
    conditions = ("device", "threads", "instructions", "versions", "floor")
    now = {name: before[name] for name in conditions} | {"date": "2026-01-03"}
    assert bench.kept(path, now) == now
    path.write_text(json.dumps(before))
    joined = bench.kept(path, now)
    assert joined["workloads"] == before["workloads"] and joined["date"] == "2026-01-01 to 2026-01-03"
    path.write_text(json.dumps(joined))
    assert bench.kept(path, now | {"date": "2026-01-04"})["date"] == "2026-01-01 to 2026-01-04"
    assert "workloads" not in bench.kept(path, now | {"threads": 1})
    assert "workloads" not in bench.kept(path, now | {"instructions": "AVX512"})


def test_a_stack_is_the_one_asked_for_and_takes_whole_calls():
    stack = scale.stacked(scale.digits(12), 3, 7, torch.device("cpu"))
    assert len(stack) == 3 and stack.budgets == [7, 7, 7]
    assert stack.layout.size == 64 * 12 + 12 + 12 * 12 + 12 + 12 * 10 + 10
    steps = [scale.steps_of(scale.digits(12), n, "flat", 0.5, torch.device("cpu")) for n in (64, 640)]
    assert steps[0] == pytest.approx(10 * steps[1], rel=0.1)
    assert scale.steps_of(scale.digits(12), 3, "compiled", 1e-9, torch.device("cpu")) == 128
    free = reprise.device.free_memory
    with scale.limited(5):
        assert reprise.device.free_memory(torch.device("cpu")) == 5
    assert reprise.device.free_memory is free


def test_the_peak_counts_from_its_start():
    before = scale.start_of_peak(torch.device("cpu"))
    if before is None:
        pytest.skip("this system does not tell the memory of a process")
    size = 64 * 2**20
    torch.ones(size // 4)  # gone before the peak is asked for
    grown = scale.peak(torch.device("cpu")) - before
    assert 0.95 * size < grown < 1.2 * size
