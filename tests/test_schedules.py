import math

import pytest
import torch

from reprise.schedules import (
    Constant,
    Drops,
    InverseSqrt,
    InverseTime,
    LinearDecay,
    Triangle,
    Warmup,
    WarmupCosine,
)

TOTAL = 40
STEPS = torch.arange(TOTAL)


def torch_rates(make, value=0.3):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=value)
    scheduler = make(optimiser)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return torch.tensor(rates, dtype=torch.float64)


@pytest.mark.parametrize(
    "schedule, make",
    [
        (Constant(0.3), lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
        (WarmupCosine(0.3), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        (WarmupCosine(0.3, floor=0.1), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, TOTAL, 0.03)),
        (LinearDecay(0.3), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, TOTAL)),
        (LinearDecay(0.3, 0.2), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL)),
        (Drops(0.3, fractions=(0.5, 0.75)), lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 30])),
        (
            Drops(0.3, steps=(7, 8), factor=0.5),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [7, 8], 0.5),
        ),
        (Warmup(0.3, 10), lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: min(1, t / 10))),
        (InverseTime(0.3, 2.5), lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 2.5))),
        (InverseSqrt(0.3), lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: (t + 1) ** -0.5)),
    ],
)
def test_schedules_equal_torch(schedule, make):
    torch.testing.assert_close(schedule(STEPS, TOTAL), torch_rates(make), atol=1e-14, rtol=1e-12)


def test_warm_up_and_cosine():
    rates = WarmupCosine(2.0, steps=10, floor=0.5)(STEPS, TOTAL)
    for t in range(TOTAL):
        cosine = 0.5 + 0.25 * (1 + math.cos(math.pi * (t - 10) / 30))
        assert rates[t].item() == pytest.approx(2 * t / 10 if t < 10 else 2 * cosine, abs=1e-12)


def test_triangle_rises_over_its_share_and_reaches_zero_at_the_end():
    rates = Triangle(3.0, rise=0.25)(torch.tensor([0, 5, 10, 25, 39, 40, 50]), TOTAL)
    torch.testing.assert_close(rates, torch.tensor([0, 1.5, 3, 1.5, 0.1, 0, 0], dtype=torch.float64))


def test_drops_fall_on_the_rounded_step_whatever_the_rounding_of_the_product():
    schedule = Drops(1.0, fractions=(0.7,))
    assert [n for n in range(10) if schedule(n, 10) < 1] == [7, 8, 9]  # 0.7 * 10 is not below 7 in floats
    assert [n for n in range(400) if schedule(n, 400) < 1] == list(range(280, 400))


def test_drops_with_warm_up():
    rates = Drops(0.4, steps=(5,), warmup=4)(torch.tensor([0, 1, 4, 5]), TOTAL)
    torch.testing.assert_close(rates, torch.tensor([0, 0.1, 0.4, 0.04], dtype=torch.float64))


ALL = [
    Constant(1.0),
    Warmup(1.0, 3),
    WarmupCosine(1.0, 3),
    Triangle(1.0),
    LinearDecay(1.0),
    Drops(1.0, fractions=(0.5,)),
    InverseTime(1.0),
    InverseSqrt(1.0),
]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_values_are_float64_of_the_shape_of_the_step(schedule):
    assert schedule(3, 10).dtype == torch.float64 and schedule(3, 10).shape == ()
    steps = torch.arange(6).reshape(2, 3)
    assert schedule(steps, torch.tensor(10)).shape == (2, 3)
    by_member = torch.func.vmap(lambda total: schedule(torch.tensor(3), total))(torch.tensor([10, 20]))
    assert by_member[1] == schedule(3, 20)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Warmup(1.0, 0), "steps must be at least 1"),
        (lambda: WarmupCosine(1.0, -1), "must not be negative"),
        (lambda: WarmupCosine(1.0, floor=2), "floor is a share"),
        (lambda: Triangle(1.0, rise=1.0), "rise is a share"),
        (lambda: LinearDecay(1.0, floor=-1), "floor is a share"),
        (lambda: Drops(1.0), "either fractions or steps"),
        (lambda: Drops(1.0, fractions=(0.5,), steps=(3,)), "either fractions or steps"),
        (lambda: Drops(1.0, fractions=(7,)), "between 0 and 1"),
        (lambda: InverseTime(1.0, 0), "offset must be above 0"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
