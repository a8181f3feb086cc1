"""Clipping policies, groups of parameters, the moving average: values worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ovperception.errors import InvalidParameter
from ovperception.training.ema import MovingAverage
from ovperception.training.gradients import ClipKind, GradientClip, clip_policy, not_finite
from ovperception.training.parameters import OptimizerSettings, make_optimizer, parameter_groups


def _parameters() -> list[nn.Parameter]:
    """Gradients (3, 4) and (0, 12): norms 5 and 12, together 13."""
    found = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    found[0].grad, found[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 12.0])
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [[3, 4], [0, 12]]),
        ("norm", [[1.5, 2], [0, 6]]),
        ("norm_each", [[3, 4], [0, 6.5]]),
        ("value", [[3, 4], [0, 6.5]]),
    ],
)
def test_policies_clip_and_tell_the_norm_before(kind: ClipKind, expected: list[list[float]]) -> None:
    parameters = _parameters()
    policy = clip_policy(GradientClip(kind=kind, limit=6.5))
    assert float(policy(parameters)) == pytest.approx(13.0)
    for parameter, wanted in zip(parameters, expected, strict=False):
        torch.testing.assert_close(parameter.grad, torch.tensor(wanted, dtype=torch.float32))
    policy.load_state_dict(policy.state_dict())


def test_value_and_norm_each_differ_where_a_gradient_has_many_numbers() -> None:
    for kind, wanted in (("value", [3.0, 3.5]), ("norm_each", [2.1, 2.8])):
        parameters = _parameters()
        clip_policy(GradientClip(kind=kind, limit=3.5))(parameters)  # type: ignore[arg-type]
        torch.testing.assert_close(parameters[0].grad, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_a_nan_does_not_spread_over_the_other_gradients() -> None:
    parameters = _parameters()
    parameters[1].grad = torch.tensor([float("nan"), 1.0])
    norm = clip_policy(GradientClip(kind="norm", limit=1.0))(parameters)
    assert not norm.isfinite()
    assert not_finite((str(i), p.grad) for i, p in enumerate(parameters)) == ["1"]


@pytest.mark.parametrize("changed", [{"kind": "median"}, {"limit": 0.0}], ids=str)
def test_an_unknown_policy_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="clipping"):
        GradientClip(**changed)  # type: ignore[arg-type]


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    module[0].bias.requires_grad_(False)
    decay, plain = parameter_groups(module, 0.1)
    assert [p.ndim for p in decay["params"]] == [2]
    assert [p.ndim for p in plain["params"]] == [1, 1]
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_parts_may_learn_faster_and_everything_may_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    settings = OptimizerSettings(kind="sgd", weight_decay=1e-4, faster={"1.": 10.0}, decay_all=True)
    optimizer = make_optimizer(module, settings, 0.1)
    found = {g.get("rate_factor", 1.0): len(g["params"]) for g in optimizer.param_groups if g["params"]}
    assert found == {1.0: 2, 10.0: 2}
    with pytest.raises(InvalidParameter, match="2\\."):
        parameter_groups(module, 0.0, faster={"2.": 10.0})


class Asking(nn.Module):
    """Of everything one: a table, a scale, a norm, and a matrix that is called as tables are."""

    def __init__(self) -> None:
        super().__init__()
        self.query_features = nn.Parameter(torch.zeros(3, 2))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.LayerNorm(2)
        self.query = nn.Linear(2, 2)
        self.words = nn.Embedding(4, 2)


def test_matrices_decay_whatever_they_are_called() -> None:
    module = Asking()
    decay, plain = parameter_groups(module, 0.1)
    assert [id(p) for p in decay["params"]] == [id(module.query.weight)]
    assert len(plain["params"]) == len(list(module.parameters())) - 1


def test_all_but_norms_and_tables_may_decay() -> None:
    """detectron2's rule: WEIGHT_DECAY_NORM and WEIGHT_DECAY_EMBED are 0, biases are like matrices."""
    module = Asking()
    settings = OptimizerSettings(weight_decay=0.05, decay_but_norms=True)
    decay, plain = make_optimizer(module, settings, 0.1).param_groups
    names = {id(p): name for name, p in module.named_parameters()}
    assert {names[id(p)] for p in decay["params"]} == {"logit_scale", "query.weight", "query.bias"}
    spared = {"query_features", "norm.weight", "norm.bias", "words.weight"}
    assert {names[id(p)] for p in plain["params"]} == spared
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    with pytest.raises(InvalidParameter, match="One rule"):
        OptimizerSettings(decay_all=True, decay_but_norms=True)


def test_the_average_follows_and_gives_way() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = MovingAverage(module, 0.99)
    module.weight.data.fill_(1.0)
    average.update()  # update 0 keeps (1 + 0) / (10 + 0) of what was there
    assert float(average.weights["weight"]) == pytest.approx(0.9)
    average.update()  # update 1 keeps 2 / 11
    assert float(average.weights["weight"]) == pytest.approx(0.9 * 2 / 11 + 9 / 11)
    with average.applied():
        assert float(module.weight.detach()) == pytest.approx(0.9 * 2 / 11 + 9 / 11)
    assert float(module.weight.detach()) == 1.0
    other = MovingAverage(module, 0.99)
    other.load_state_dict(average.state_dict())
    assert (other.updates, float(other.weights["weight"])) == (2, float(average.weights["weight"]))
