import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from reprise.schedules import Constant
from reprise.updates import SAM, SGD, Adam, AdamW, Clipped, Masked, RMSProp, expand

M, P, STEPS = 3, 7, 30


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(M, P, P, generator=generator, dtype=torch.float64)
    shift = torch.randn(M, P, generator=generator, dtype=torch.float64)
    start = torch.randn(M, P, generator=generator, dtype=torch.float64)

    def losses(points):
        seen = torch.einsum("mij,mj->mi", matrix.to(points.dtype), points - shift.to(points.dtype))
        return torch.log(torch.cosh(seen)).sum(-1)

    def gradient(points, batch=None):
        points = points.detach().requires_grad_()
        value = losses(points)
        return value.detach(), torch.autograd.grad(value.sum(), points)[0]

    return losses, gradient, start.to(dtype)


def evaluated(rule, values=None):
    """Numbers as the sweep would give them: tensors (M, 1) or (M, P); `values` overrides by name."""

    def leaf(name, value):
        value = (values or {}).get(name, value)
        if isinstance(value, dict):
            return {key: leaf(key, inner) for key, inner in value.items()}
        value = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        value = value if value.dtype == torch.bool else value.double()
        by_parameter = value.ndim and value.shape[-1] == P
        return value.expand(M, P) if by_parameter else value.reshape(-1, 1).expand(M, 1)

    return {name: leaf(name, value) for name, value in rule.numbers().items()}


def run(rule, values=None, steps=STEPS, dtype=torch.float64, watch=None):
    _, gradient, params = problem(dtype)
    state, hyper = rule.init(params), evaluated(rule, values)
    for t in range(steps):
        params, state = rule.step(params, state, gradient, hyper, torch.tensor(t))
        if watch:
            watch(params, state)
    return params, state


def reference(make, steps=STEPS, before=None):
    """The members one by one under a torch optimiser; make(member, [parameter]) -> optimiser."""
    losses, _, start = problem()
    ends = []
    for m in range(M):
        point = start[m].clone().requires_grad_()
        optimiser = make(m, [point])
        for _ in range(steps):
            optimiser.zero_grad()
            whole = torch.cat([start[:m], point[None], start[m + 1 :]])
            losses(whole)[m].backward()
            if before:
                before(m, point)
            optimiser.step()
        ends.append(point.detach())
    return torch.stack(ends)


RATES = torch.tensor([0.01, 0.03, 0.1], dtype=torch.float64)


@pytest.mark.parametrize(
    "rule, make",
    [
        (SGD(0.1), lambda m, p: torch.optim.SGD(p, lr=RATES[m].item())),
        (SGD(0.1, momentum=0.9), lambda m, p: torch.optim.SGD(p, lr=RATES[m].item(), momentum=0.9)),
        (
            SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.02),
            lambda m, p: torch.optim.SGD(
                p, lr=RATES[m].item(), momentum=0.8, nesterov=True, weight_decay=0.02
            ),
        ),
        (
            Adam(0.1, betas=(0.9, 0.95), eps=1e-3),
            lambda m, p: torch.optim.Adam(p, lr=RATES[m].item(), betas=(0.9, 0.95), eps=1e-3),
        ),
        (
            Adam(0.1, betas=(0.0, 0.9), weight_decay=0.1),
            lambda m, p: torch.optim.Adam(p, lr=RATES[m].item(), betas=(0.0, 0.9), weight_decay=0.1),
        ),
        (
            AdamW(0.1, weight_decay=0.3),
            lambda m, p: torch.optim.AdamW(p, lr=RATES[m].item(), weight_decay=0.3),
        ),
        (
            RMSProp(0.1, alpha=0.9, weight_decay=0.1),
            lambda m, p: torch.optim.RMSprop(p, lr=RATES[m].item(), alpha=0.9, weight_decay=0.1),
        ),
    ],
)
def test_rules_equal_torch_with_a_rate_for_each_member(rule, make):
    torch.testing.assert_close(run(rule, {"lr": RATES})[0], reference(make), atol=1e-12, rtol=1e-12)


def test_float32_adam_is_torch_s_to_rounding():
    # b2 rounded before 1 - b2 is taken would be off by 2e-5 of a step
    rule, start = Adam(1e-3, eps=0.0), torch.zeros(1, 4)
    grads = torch.tensor([[1.0, -2.0, 1e-3, 5.0]])
    hyper = {k: torch.full((1, 1), float(v), dtype=torch.float64) for k, v in rule.numbers().items()}
    params, state = start, rule.init(start)
    point = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([point], lr=1e-3, eps=0.0)
    for t in range(5):
        params, state = rule.step(
            params, state, lambda p, batch=None: (p[:, 0], grads), hyper, torch.tensor(t)
        )
        point.grad = grads.clone()
        optimiser.step()
        torch.testing.assert_close(params, point.detach(), rtol=1e-6, atol=0)


def test_betas_may_differ_by_member():
    betas = torch.tensor([0.5, 0.9, 0.99])
    expected = reference(lambda m, p: torch.optim.Adam(p, lr=0.05, betas=(0.9, betas[m].item())))
    got = run(Adam(0.05), {"beta2": betas})[0]
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


def test_a_member_moves_as_if_it_were_alone():
    together = run(Adam(0.05))[0]
    slow = run(Adam(0.05), {"lr": torch.tensor([0.05, 0.0, 3.0], dtype=torch.float64)})[0]
    assert torch.equal(together[0], slow[0]) and torch.equal(slow[1], problem()[2][1])


@pytest.mark.parametrize(
    "rule",
    [
        SGD(0.1, momentum=0.9, weight_decay=0.1),
        Adam(),
        AdamW(),
        RMSProp(),
        SAM(Clipped(Masked(SGD(0.1), torch.ones(P)), 1.0), 0.1),
    ],
)
def test_float32_parameters_stay_float32_though_numbers_are_float64(rule):
    params, state = run(rule, steps=3, dtype=torch.float32)
    assert params.dtype == torch.float32
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


def test_rates_by_parameter_name_match_parameter_groups():
    rates = expand({"a": 0.0, "*": 0.05}, {"a": (2,), "b": (P - 2,)})
    params, _ = run(SGD(0.1, momentum=0.9), {"lr": rates})
    start = problem()[2]
    assert torch.equal(params[:, :2], start[:, :2])
    assert (params[:, 2:] != start[:, 2:]).all()


def test_clipping_equals_torch_before_momentum():
    norms = torch.tensor([0.5, 2.0, 1e3], dtype=torch.float64)
    expected = reference(
        lambda m, p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        before=lambda m, point: torch.nn.utils.clip_grad_norm_([point], norms[m].item()),
    )
    got = run(Clipped(SGD(0.05, momentum=0.9)), {"norm": norms})[0]
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
def test_sam_equals_a_hand_loop(normalised):
    rule = SAM(SGD(0.03, momentum=0.9), radius=0.2, normalised=normalised)
    got, _ = run(rule)
    _, gradient, points = problem()
    momentum = torch.zeros_like(points)
    for _ in range(STEPS):
        away = gradient(points)[1]
        if normalised:
            away = torch.stack([row / row.norm() for row in away])
        momentum = 0.9 * momentum + gradient(points + 0.2 * away)[1]
        points = points - 0.03 * momentum
    torch.testing.assert_close(got, points, atol=1e-12, rtol=1e-12)


def test_sam_leaves_a_stationary_point():
    def gradient(points, batch=None):
        return points.square().sum(-1) / 2, points

    zero = torch.zeros(M, P, dtype=torch.float64)
    rule = SAM(SGD(0.1), 0.5)
    params, _ = rule.step(zero, rule.init(zero), gradient, evaluated(rule), torch.tensor(0))
    assert torch.equal(params, zero)


def test_sam_on_some_parameters_uses_their_norm_only():
    seen = []

    def gradient(points, batch=None):
        seen.append(points)
        return points.sum(-1), torch.full_like(points, 2.0)

    radius = torch.tensor([0.3, 0.3, 0, 0, 0, 0, 0], dtype=torch.float64)
    rule = SAM(SGD(0.1), radius)
    start = torch.zeros(M, P, dtype=torch.float64)
    rule.step(start, {}, gradient, evaluated(rule), torch.tensor(0))
    torch.testing.assert_close(seen[1].norm(dim=-1), torch.full((M,), 0.3, dtype=torch.float64))
    assert torch.equal(seen[1][:, 2:], start[:, 2:])


@pytest.mark.parametrize(
    "inner",
    [
        SGD(0.1, momentum=0.9, weight_decay=0.1),
        AdamW(0.1),
        RMSProp(0.1),
        Adam(0.1, weight_decay=0.1),
        SAM(Clipped(SGD(0.1, 0.9), 1.0), 0.1),
    ],
)
def test_pruned_weights_stay_exactly_zero(inner):
    mask = torch.arange(P) % 2 == 0

    def watch(params, state):
        assert (params[:, ~mask] == 0).all() and (params[:, mask] != 0).all()

    run(Masked(inner, mask), watch=watch)


def test_masked_training_equals_training_the_smaller_problem():
    mask = torch.tensor([1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)
    got, _ = run(Masked(Clipped(SGD(0.05, momentum=0.9, weight_decay=0.1), 1.0), mask))
    _, gradient, start = problem()
    small = start[:, mask]

    def restricted(points, batch=None):
        full = torch.zeros(M, P, dtype=torch.float64).masked_scatter(mask.expand(M, P), points)
        loss, grads = gradient(full)
        return loss, grads[:, mask]

    rule = Clipped(SGD(0.05, momentum=0.9, weight_decay=0.1), 1.0)
    state, hyper = rule.init(small), evaluated(rule)
    for t in range(STEPS):
        small, state = rule.step(small, state, restricted, hyper, torch.tensor(t))
    torch.testing.assert_close(got[:, mask], small, atol=1e-12, rtol=1e-12)


def test_a_wrapper_passes_the_batch_on_and_calls_the_gradient_at_the_point_first():
    calls = []

    def gradient(points, batch=None):
        calls.append(batch)
        return points.sum(-1), torch.ones_like(points)

    class TwoBatches(SGD):
        def step(self, params, state, gradient, hyper, step):
            return params - gradient(params, "other")[1], state

    rule = SAM(TwoBatches(0.1), 0.1)
    rule.step(torch.zeros(M, P), {}, gradient, evaluated(rule), torch.tensor(0))
    assert calls == ["other", "other"]


def test_a_step_can_be_traced():
    rule = Masked(SAM(AdamW(0.1), 0.1), torch.arange(P) > 2)
    params = torch.randn(M, P)

    def gradient(points, batch=None):
        return points.square().sum(-1), 2 * points

    def step(params, state, hyper, t):
        return rule.step(params, state, gradient, hyper, t)

    arguments = params, rule.init(params), evaluated(rule), torch.tensor(0)
    traced = make_fx(step)(*arguments)
    for got, expected in zip(
        torch.utils._pytree.tree_leaves(traced(*arguments)),
        torch.utils._pytree.tree_leaves(step(*arguments)),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_numbers_mirror_the_rule_and_zeros_are_structural():
    schedule = Constant(0.1)
    rule = SAM(SGD(schedule, momentum=0, weight_decay={"*": 0.0}), radius=0.1)
    assert rule.numbers() == {"rule": {"lr": schedule, "weight_decay": {"*": 0.0}}, "radius": 0.1}
    assert set(Adam().numbers()) == {"lr", "beta1", "beta2", "eps"}
    assert "momentum" not in SGD(0.1).init(torch.zeros(2, 3))


def test_program_separates_what_cannot_share_a_stack():
    assert SGD(0.1).program == SGD(Constant(0.3)).program == SGD(np.float64(0.2)).program
    programs = [
        SGD(0.1),
        SGD(0.1, 0.9),
        SGD(0.1, 0.9, nesterov=True),
        SGD({"*": 0.1}),
        SGD(0.1, weight_decay=0.1),
        Adam(),
        AdamW(),
        SAM(SGD(0.1)),
        SAM(SGD(0.1), normalised=False),
        Clipped(SGD(0.1)),
    ]
    assert len({rule.program for rule in programs}) == len(programs)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: SGD(-0.1), r"SGD: lr must lie in \[0, inf\)"),
        (lambda: SGD({"a": 0.1, "b": -1}), "lr must lie"),
        (lambda: SGD(0.1, nesterov=True), "nesterov needs momentum"),
        (lambda: SGD(float("nan")), "lr must lie"),
        (lambda: Adam(betas=(0.9, 1.0)), r"Adam: beta2 must lie in \[0, 1\)"),
        (lambda: Adam(betas=0.9), "betas must be a pair"),
        (lambda: AdamW(weight_decay=-1), "AdamW: weight_decay"),
        (lambda: SAM(SGD(0.1), torch.tensor([-1.0])), "SAM: radius"),
        (lambda: Masked(SGD(0.1), torch.tensor([0.0, 0.5])), "Masked: mask must consist of zeros and ones"),
        (lambda: Masked(SGD(0.1), {"*": 2}), "Masked: mask must consist of zeros and ones"),
    ],
)
def test_impossible_numbers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_expand_takes_the_first_pattern_that_matches():
    layout = {"hidden.weight": slice(0, 6), "hidden.bias": slice(6, 8), "readout.weight": slice(8, 10)}
    value = expand({"*.bias": 0.0, "hidden*": 1.0, "*": 2.0}, layout)
    assert value.tolist() == [1.0] * 6 + [0.0] * 2 + [2.0] * 2


def test_expand_refuses_unknown_and_forgotten_names():
    layout = {"hidden.weight": (2, 3), "readout.weight": (2,)}
    with pytest.raises(ValueError, match=r"patterns \['embed\*'\] match no parameter.*hidden.weight"):
        expand({"embed*": 0.0, "*": 1.0}, layout)
    with pytest.raises(ValueError, match=r"parameters \['readout.weight'\] are matched by none"):
        expand({"hidden*": 0.0}, layout)
