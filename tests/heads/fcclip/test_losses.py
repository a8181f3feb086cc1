"""Matching and losses: hand-worked cases, and that a perfect answer costs next to nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from heads.fcclip import losses, matching
from heads.fcclip.losses import LossSettings, set_losses
from heads.fcclip.matching import assign, pair_costs, sample_points
from heads.fcclip.proposals import Proposals
from ovperception.training.distributed import World
from ovperception.training.step_counts import counted
from ovperception.training.targets import Targets

SETTINGS = LossSettings(points=256)
WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "points": 256}


def match(*image: Any, **weights: Any) -> tuple[Tensor, Tensor]:
    """The assignment of one image alone."""
    return assign([pair_costs(*image, **weights)])[0]


class Namer:
    """Class logits stored beside the query they belong to: the embedding is the logits."""

    def class_logits(self, query_embeddings: Tensor, text: object) -> Tensor:
        return query_embeddings


def proposed(*layers: tuple[Tensor, Tensor]) -> Proposals:
    """Mask logits (B, Q, h, w) and class logits (B, Q, K + 1) of every layer: a mask is its own embedding."""
    masks, logits = (torch.stack(parts, dim=1) for parts in zip(*layers, strict=True))
    size = masks.shape[-2:]
    cells = torch.eye(size.numel()).unflatten(1, size).expand(len(masks), -1, -1, -1)
    return Proposals(
        mask_logits=masks.detach(),
        mask_embeddings=masks.flatten(3),
        mask_features=cells,
        query_embeddings=logits,
    )


def halves() -> Targets:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    masks[1, :, 8:] = True
    return Targets(class_ids=torch.tensor([0, 1]), masks=masks, boxes=torch.zeros(2, 4))


def perfect(truth: Targets) -> tuple[Tensor, Tensor]:
    """Three queries: the second object, nothing, the first object."""
    order = [1, None, 0]
    masks = torch.full((1, 3, 16, 16), -6.0)
    logits = torch.full((1, 3, 3), -20.0)
    for query, found in enumerate(order):
        if found is None:
            logits[0, query, 2] = 20
        else:
            masks[0, query][truth.masks[found]] = 6
            logits[0, query, truth.class_ids[found]] = 20
    return masks, logits


def test_sampling_reads_bilinear_values_with_cell_centres_inside_the_map() -> None:
    ramp = torch.arange(4.0).expand(1, 4, 4)
    points = torch.tensor([[[0.125, 0.5], [0.25, 0.5], [0.875, 0.5]]])
    assert sample_points(ramp, points).tolist() == [[0.0, 0.5, 3.0]]


def test_every_object_finds_its_query() -> None:
    torch.manual_seed(0)
    truth = halves()
    masks, logits = perfect(truth)
    queries, objects = match(logits[0], masks[0], truth.class_ids, truth.masks, **WEIGHTS)
    assert dict(zip(queries.tolist(), objects.tolist(), strict=True)) == {0: 1, 2: 0}


def test_costs_are_summed_in_full_precision() -> None:
    """Of 12,544 points, as many as are published: in float16 the sums for masks yet blank are infinite."""
    torch.manual_seed(0)
    truth = halves()
    _, logits = perfect(truth)
    blank = torch.full((3, 16, 16), -60.0, dtype=torch.float16)
    with torch.autocast("cpu", torch.float16):
        queries, objects = match(
            logits[0].half(), blank, truth.class_ids, truth.masks, **WEIGHTS | {"points": 12_544}
        )
    assert dict(zip(queries.tolist(), objects.tolist(), strict=True)) == {0: 1, 2: 0}  # by their classes


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_give_a_loss_that_is_not(value: float) -> None:
    """And no error of the matching: the run is to say which pictures it was."""
    truth = halves()
    masks, logits = perfect(truth)
    for broken in ((torch.full_like(masks, value), logits), (masks, torch.full_like(logits, value))):
        found = set_losses(Namer(), proposed(broken), [truth], None, SETTINGS)  # type: ignore[arg-type]
        assert not all(bool(v.isfinite()) for v in found.values())


def test_an_image_without_objects_matches_nothing() -> None:
    queries, objects = match(
        torch.zeros(3, 3), torch.zeros(3, 4, 4), torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 8, 8, dtype=torch.bool), **WEIGHTS,
    )  # fmt: skip
    assert len(queries) == len(objects) == 0


def test_matrices_assigned_together_are_assigned_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (4, 0), (2, 6), (7, 7))  # fewer objects than queries, none, more, as many
    costs = [torch.rand(shape, generator=generator) for shape in shapes]
    together = assign(costs)
    for cost, (queries, objects) in zip(costs, together, strict=True):
        [(own_queries, own_objects)] = assign([cost])
        assert queries.tolist() == own_queries.tolist()
        assert objects.tolist() == own_objects.tolist()
        assert len(set(queries.tolist())) == len(set(objects.tolist())) == min(cost.shape)


def test_a_perfect_answer_costs_nothing_and_a_blank_one_its_entropy() -> None:
    torch.manual_seed(0)
    truth = halves()
    anywhere = LossSettings(points=4096, uncertain_share=0.0)
    best = set_losses(Namer(), proposed(perfect(truth)), [truth], None, anywhere)  # type: ignore[arg-type]
    assert float(best["class"]) < 1e-6
    blank = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 3)
    worst = set_losses(Namer(), proposed(blank), [truth], None, SETTINGS)  # type: ignore[arg-type]
    assert float(worst["class"]) == pytest.approx(2 * math.log(3), rel=1e-5)
    assert float(worst["mask"]) == pytest.approx(5 * math.log(2), rel=1e-4)
    # Between cells of two minds, and at the rim, even a perfect mask is unsure of fractions.
    assert float(best["mask"]) < 0.5 * float(worst["mask"])
    assert float(best["dice"]) < 0.1 * float(worst["dice"])


def test_void_counts_for_a_tenth() -> None:
    truth = Targets(
        torch.zeros(0, dtype=torch.long), torch.zeros(0, 16, 16, dtype=torch.bool), torch.zeros(0, 4)
    )
    other = halves()
    masks, logits = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 3)
    logits[0, :, 2] = 3.0
    losses = set_losses(Namer(), proposed((masks, logits)), [truth, other], None, SETTINGS)  # type: ignore[arg-type]
    void = -torch.log_softmax(logits[0, 0], 0)[2]
    plain = math.log(3)
    expected = 2 * (3 * 0.1 * float(void) + 2 * plain + 0.1 * plain) / (3 * 0.1 + 2 + 0.1)
    assert float(losses["class"]) == pytest.approx(expected, rel=1e-5)


def test_layers_add_up_and_gradients_flow() -> None:
    torch.manual_seed(0)
    truth = halves()
    masks = torch.randn(1, 3, 8, 8, requires_grad=True)
    logits = torch.randn(1, 3, 3, requires_grad=True)
    losses = set_losses(Namer(), proposed((masks, logits), (masks, logits)), [truth], None, SETTINGS)  # type: ignore[arg-type]
    torch.stack([*losses.values()]).sum().backward()
    assert masks.grad is not None
    assert float(masks.grad.abs().sum()) > 0
    assert logits.grad is not None
    single = set_losses(Namer(), proposed((masks, logits)), [truth], None, SETTINGS)  # type: ignore[arg-type]
    assert float(losses["class"].detach()) == pytest.approx(2 * float(single["class"].detach()), rel=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_parts_of_a_step_together_are_the_whole_batch(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture with one object, one with three; every point of a map says the same."""
    for module in (losses, matching):
        flat = lambda maps, points: maps[:, :1, 0].float().expand(-1, points.shape[1])  # noqa: E731
        monkeypatch.setattr(module, "sample_points", flat)
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(2, 5, 1, 1, generator=generator).expand(-1, -1, 8, 8)
    logits = torch.randn(2, 5, 4, generator=generator)
    truths = [
        Targets(torch.arange(n), torch.ones(n, 16, 16, dtype=torch.bool), torch.zeros(n, 4)) for n in (1, 3)
    ]
    whole = set_losses(Namer(), proposed((masks, logits)), truths, None, SETTINGS)  # type: ignore[arg-type]
    batches = [(None, [truth]) for truth in truths] if parts == 2 else [(None, truths)]
    sums = dict.fromkeys(whole, 0.0)
    with counted(batches, World()):
        for number, (_, own) in enumerate(batches):
            seen = slice(number, number + 1) if parts == 2 else slice(None)
            found = set_losses(Namer(), proposed((masks[seen], logits[seen])), own, None, SETTINGS)  # type: ignore[arg-type]
            sums = {name: sums[name] + float(value) / parts for name, value in found.items()}
    assert sums == pytest.approx({name: float(value) for name, value in whole.items()}, rel=1e-5)


def test_masks_of_some_queries_and_their_gradients_are_those_of_all() -> None:
    torch.manual_seed(0)
    embeddings, cells = (
        torch.randn(3, 2, 4, 5, requires_grad=True),
        torch.randn(3, 5, 2, 3, requires_grad=True),
    )
    everything = torch.einsum("blqc,bchw->blqhw", embeddings, cells).flatten(1, 2)
    proposals = Proposals(
        mask_logits=everything.detach().unflatten(1, (2, 4)),
        mask_embeddings=embeddings,
        mask_features=cells,
        query_embeddings=embeddings,
    )
    chosen = [torch.tensor([6, 0]), torch.tensor([], dtype=torch.long), torch.tensor([3])]
    expected = torch.stack([everything[0, 6], everything[0, 0], everything[2, 3]])
    found = proposals.masks_of(chosen)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn(3, 2, 3)
    gradients = [torch.autograd.grad(m, (embeddings, cells), cotangent) for m in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_losses_and_gradients_are_those_of_the_plain_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer by layer, every mask with gradients, as the paper has it; at points that both draw alike."""
    monkeypatch.setattr(torch, "rand", _same_points)
    torch.manual_seed(0)
    masks, logits = torch.randn(2, 3, 5, 8, 8), torch.randn(2, 3, 5, 4)
    truths = [
        Targets(torch.randint(0, 3, (n,)), torch.randn(n, 16, 16) > 0, torch.zeros(n, 4)) for n in (1, 3)
    ]
    found, expected = {}, {}
    for into, losses_of in ((found, _stacked), (expected, _plain)):
        leaves = masks.clone().requires_grad_(), logits.clone().requires_grad_()
        named = losses_of(*leaves, truths)
        torch.stack([*named.values()]).sum().backward()
        into |= {name: value.detach() for name, value in named.items()}
        into |= {"masks": leaves[0].grad, "logits": leaves[1].grad}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def _same_points(*shape: int, device: object = None) -> Tensor:
    """Points that do not depend on how often one drew before, nor for how many masks."""
    generator = torch.Generator().manual_seed(shape[1])
    return torch.empty(1, *shape[1:]).uniform_(generator=generator).expand(*shape)


def _stacked(masks: Tensor, logits: Tensor, truths: list[Targets]) -> dict[str, Tensor]:
    layers = [(masks[:, layer], logits[:, layer]) for layer in range(masks.shape[1])]
    return set_losses(Namer(), proposed(*layers), truths, None, SETTINGS)  # type: ignore[arg-type]


def _plain(masks: Tensor, logits: Tensor, truths: list[Targets]) -> dict[str, Tensor]:
    sums = dict.fromkeys(("class", "mask", "dice"), torch.zeros(()))
    objects, void = sum(len(t.class_ids) for t in truths), logits.shape[-1] - 1
    weight = torch.tensor([1.0] * void + [SETTINGS.void_weight])
    for layer in range(masks.shape[1]):
        wanted = torch.full((len(logits), logits.shape[2]), void)
        for image, truth in enumerate(truths):
            own = masks[image, layer], logits[image, layer]
            queries, matched = match(own[1], own[0], truth.class_ids, truth.masks, **WEIGHTS)
            wanted[image, queries] = truth.class_ids[matched]
            chosen, true = own[0][queries], truth.masks[matched].float()
            points = losses._uncertain_points(chosen, SETTINGS)
            said, is_so = sample_points(chosen, points), sample_points(true, points)
            entropy = torch.nn.functional.binary_cross_entropy_with_logits(said, is_so, reduction="none")
            share = said.sigmoid()
            dice = 1 - (2 * (share * is_so).sum(1) + 1) / (share.sum(1) + is_so.sum(1) + 1)
            sums["mask"] = sums["mask"] + 5 * entropy.mean(1).sum() / objects
            sums["dice"] = sums["dice"] + 5 * dice.sum() / objects
        named = torch.nn.functional.cross_entropy(logits[:, layer].flatten(0, 1), wanted.flatten(), weight)
        sums["class"] = sums["class"] + 2 * named
    return sums
