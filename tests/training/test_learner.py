"""One step: its loss is that of its images together, in any parts, and what cannot be learned from changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from fullconv.data.augment import Augmentation
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.labels import VOID, LabelSet
from fullconv.nets import FCN, NETS, build
from fullconv.training.draws import Share
from fullconv.training.learner import Learner, NotFiniteError
from fullconv.training.loading import Batch, Loader
from fullconv.training.losses import LossOptions, TaskLoss, class_weights
from fullconv.training.options import RunOptions
from fullconv.training.recipe import Recipe
from fullconv.training.recipes import RECIPES
from inmemory import LABELS, InMemory, one

PLAIN = Recipe(optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, class_weights="none", clip=0.0)
"""A step subtracts the gradient, and does nothing else."""

TWO = {"kind": LABELS, "side": LabelSet(("no", "yes"))}


def learner(net: FCN, recipe: Recipe = PLAIN, pixels: Mapping[str, Sequence[int]] | None = None) -> Learner:
    """Of a net with those score layers that it has."""
    options = RunOptions("d", net.options, recipe, "own", seed=5, steps=1, minutes=None, precision="float32")
    counts = pixels or {task: [1] * classes for task, classes in net.options.classes.items()}
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    return Learner(net, options, {task: np.array(each) for task, each in counts.items()}, accelerator)


def batch(samples: Sequence[Sample]) -> Batch:
    """The samples as one batch, as they are."""
    first = samples[0]
    return Batch(
        [(0, index) for index in range(len(samples))],
        [sample.name for sample in samples],
        {name: [sample.inputs[name] for sample in samples] for name in first.inputs},
        {task: [sample.masks[task] for sample in samples] for task in first.masks},
    )


def lively(name: str = "fcn32s-vgg16", classes: int | dict[str, int] = 3, **options: Any) -> FCN:
    """A net whose score layers say something already: of zeros, the layers below would have no gradient."""
    torch.manual_seed(1)
    net = build(name, classes, width=1 / 16, **options)
    for path, parameter in net.named_parameters():
        if ".score." in path:
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def values(net: FCN) -> dict[str, Tensor]:
    """Copies of its weights."""
    return {name: parameter.detach().cpu().clone() for name, parameter in net.named_parameters()}


def changes(recipe: Recipe, parts: list[Batch], **options: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss of a step, and what it adds to every weight."""
    net = lively(**options)
    before = values(net)
    loss = learner(net, recipe, {SEMANTIC: (700, 200, 100)}).step(parts, 1, 1.0)
    return loss.total, {name: value - before[name] for name, value in values(net).items()}


def sided(seed: int) -> Sample:
    """A scene with two tasks."""
    scene = one(seed)
    mask = scene.masks[SEMANTIC]
    side = np.where(mask == VOID, VOID, mask > 0).astype(np.uint8)
    return Sample(scene.name, scene.inputs, {"kind": mask, "side": side})


@pytest.mark.parametrize("reduction", ["mean", "image", "sum"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"class_weights": "sqrt", "loss_share": 0.6}, {"loss": "focal+2*ohem+0.5*dice+0.25*lovasz"}],
    ids=["cross-entropy", "weighted and sampled", "all other terms"],
)
def test_parts_of_a_step_add_up_to_it(reduction: str, changed: dict[str, Any]) -> None:
    """No batch norm here, and dropout belongs to the images: the gradient is the same but for rounding."""
    samples = [one(index) for index in range(5)]
    samples[1].masks[SEMANTIC][2:9] = VOID  # images do not weigh the same
    samples[3].masks[SEMANTIC][:] = VOID
    recipe = replace(PLAIN, batch=5, reduction=reduction, **changed)
    draws = [(0, index) for index in (2, 0, 3, 1, 4)]
    found = {}
    for count in (1, 2, 3, 5):  # of five images: uneven parts
        loader = Loader(InMemory(samples), [(12, 16)] * 5, Augmentation(), 5, Share(count))
        parts = loader(draws)
        assert sorted(len(part.names) for part in parts) == sorted(len(range(k, 5, count)) for k in range(count))
        found[count] = changes(replace(recipe, accumulate=count), parts)
    whole, gradient = found[1]
    assert math.isfinite(whole)
    for count in (2, 3, 5):
        assert found[count][0] == pytest.approx(whole, rel=1e-5), count
        for name, value in gradient.items():
            # Float32 sums in another order: some 1e-7 of the largest term, over a dozen layers.
            torch.testing.assert_close(
                found[count][1][name], value, rtol=0, atol=2e-5 * value.abs().max().item(), msg=f"{name}, {count} parts"
            )
    assert all(value.abs().max() > 0 for value in gradient.values()), "every layer learns"


def scenes(net: FCN, count: int, seed: int = 0) -> list[Sample]:
    """Noise with the inputs and tasks of a net, a row of void on top."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        inputs = {
            name: rng.integers(1, 255, (12, 16, each.channels)).astype(np.uint16 if each.log else np.uint8)
            for name, each in net.options.inputs.items()
        }
        masks = {task: rng.integers(0, k, (12, 16), dtype=np.uint8) for task, k in net.options.classes.items()}
        for mask in masks.values():
            mask[0] = VOID
        samples.append(Sample(f"s{index}", inputs, masks))
    return samples


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.classes])
def test_a_published_net_starts_at_ln_k(name: str) -> None:
    """Score layers start at 0 (reference 5.2), so every class is as likely as any other."""
    torch.manual_seed(0)
    net = build(name, width=1 / 8)
    expected = sum(math.log(k) for k in net.options.classes.values())
    assert net.options.padding == "paper"
    parts = [batch(scenes(net, 1))]
    mean = learner(net, replace(PLAIN, lr=0.0)).step(parts, 0, 1.0)
    assert mean.total == pytest.approx(expected, rel=1e-5)
    sums = learner(net, replace(RECIPES["heavy"], lr=0.0)).step(parts, 1, 1.0)
    assert sums.columns["loss_per_pixel"] == pytest.approx(expected, rel=1e-5)
    assert sums.total == sums.columns["loss"] == pytest.approx(expected * 11 * 16, rel=1e-5)


def test_tasks_count_by_their_weights() -> None:
    samples = [sided(index) for index in range(3)]
    net = lively("fcn8s-slim", {"kind": 3, "side": 2}, dropout=0.0)
    recipe = replace(PLAIN, lr=0.0, task_weights={"side": 0.25})
    own = learner(net, recipe)
    with torch.no_grad():
        scores = net(torch.from_numpy(np.stack([s.inputs[IMAGE] for s in samples])).permute(0, 3, 1, 2))
    by_task = {
        task: F.cross_entropy(
            scores[task], torch.from_numpy(np.stack([s.masks[task] for s in samples])).long(), ignore_index=VOID
        ).item()
        for task in TWO
    }
    loss = own.step([batch(samples)], 0, 1.0)
    assert own.columns == list(loss.columns) == ["loss", "loss_kind", "loss_side"]
    assert loss.columns["loss_kind"] == pytest.approx(by_task["kind"], rel=1e-5)
    assert loss.columns["loss_side"] == pytest.approx(by_task["side"], rel=1e-5)
    assert loss.total == pytest.approx(by_task["kind"] + 0.25 * by_task["side"], rel=1e-5)


def test_a_task_of_weight_zero_teaches_nothing() -> None:
    parts = [batch([sided(0), sided(1)])]
    net = lively("fcn8s-slim", {"kind": 3, "side": 2})
    before = values(net)
    learner(net, replace(PLAIN, task_weights={"side": 0.0})).step(parts, 0, 1.0)
    still = [name for name, value in values(net).items() if torch.equal(value, before[name])]
    assert still
    assert all(name.startswith("heads.side.") for name in still)
    assert set(still) == {name for name in before if name.startswith("heads.side.")}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_terms_and_tasks_reach_the_columns(reduction: str) -> None:
    text, factors = "focal+0.5*dice+2*lovasz", {"focal": 1.0, "dice": 0.5, "lovasz": 2.0}
    samples = [sided(index) for index in range(2)]
    pixels = {"kind": (400, 150, 50), "side": (300, 300)}
    net = lively("fcn8s-slim", {"kind": 3, "side": 2}, dropout=0.0)
    recipe = replace(PLAIN, lr=0.0, loss=text, reduction=reduction, class_weights="inverse", focal_gamma=1.5)
    own = learner(net, recipe, pixels)
    with torch.no_grad():
        scores = net(torch.from_numpy(np.stack([s.inputs[IMAGE] for s in samples])).permute(0, 3, 1, 2))
    loss = own.step([batch(samples)], 0, 1.0)
    expected = {}
    for task, counts in pixels.items():
        target = torch.from_numpy(np.stack([s.masks[task] for s in samples]))
        weights = torch.tensor(class_weights(counts, "inverse"))
        for term in factors:
            alone = TaskLoss(LossOptions({term: 1.0}, reduction, focal_gamma=1.5), weights)
            expected[f"loss_{task}_{term}"] = alone(scores[task], target, alone.amounts(target)).item()
    beside = ["loss", "loss_per_pixel"] if reduction == "sum" else ["loss"]
    assert own.columns == list(loss.columns) == [*beside, *expected]
    for name, value in expected.items():
        assert loss.columns[name] == pytest.approx(value, rel=1e-5), name
    total = sum(factors[name.rpartition("_")[2]] * value for name, value in expected.items())
    assert loss.columns["loss"] == loss.total == pytest.approx(total, rel=1e-5)


def test_columns_of_one_task_name_the_terms_alone() -> None:
    net = lively("fcn8s-slim")
    assert learner(net).columns == ["loss"]
    assert learner(net, replace(PLAIN, reduction="sum")).columns == ["loss", "loss_per_pixel"]
    assert learner(net, replace(PLAIN, reduction="sum", loss="dice")).columns == ["loss"], "there is no sum in it"
    two = learner(net, replace(PLAIN, loss="cross-entropy+dice"))
    assert two.columns == ["loss", "loss_cross-entropy", "loss_dice"]
    assert list(two.step([batch([one(0), one(1)])], 0, 1.0).columns) == two.columns


def test_heads_learn_faster_by_head_lr_and_all_by_the_schedule() -> None:
    parts = [batch([one(0), one(1)])]
    name = "fcn8s-slim"
    _, plain = changes(PLAIN, parts, name=name)
    _, heads = changes(replace(PLAIN, head_lr=10.0), parts, name=name)
    _, biases = changes(replace(PLAIN, bias_lr=2.0), parts, name=name)
    net = lively(name)
    before = values(net)
    own = learner(net, PLAIN, {SEMANTIC: (700, 200, 100)})
    own.step(parts, 1, 0.5)
    assert own.rate == 0.5
    half = {name: value - before[name] for name, value in values(net).items()}
    for path, value in plain.items():
        # The changes are differences of float32 numbers near 1.
        near = {"rtol": 1e-3, "atol": 1e-6}
        torch.testing.assert_close(heads[path], value * (10 if path.startswith("heads.") else 1), **near)
        torch.testing.assert_close(biases[path], value * (2 if path.endswith("bias") else 1), **near)
        torch.testing.assert_close(half[path], value * 0.5, **near)
    assert any(path.startswith("heads.") for path in plain)


def broken_loss(net: FCN) -> None:
    with torch.no_grad():
        net.get_parameter("heads.semantic.score.image.8.bias")[0] = math.inf


def broken_gradient(net: FCN) -> None:
    net.get_parameter("heads.semantic.score.image.8.bias").register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize(("spoil", "what"), [(broken_loss, "loss"), (broken_gradient, "gradient")])
@pytest.mark.parametrize(("optimizer", "clip"), [("sgd", 0.0), ("sgd", 1.0), ("adamw", 1.0), ("muon", 1.0)])
def test_what_is_not_finite_names_the_images_and_changes_no_weight(
    spoil: Any, what: str, optimizer: str, clip: float
) -> None:
    net = lively("fcn8s-slim")
    spoil(net)
    own = learner(net, replace(PLAIN, optimizer=optimizer, lr=0.25, clip=clip))
    before = values(net)
    samples = [one(index) for index in range(12)]
    message = (
        rf"the {what} is (nan|inf) at step 7 \(images s0, s1, .*, s11\); lower the learning rate \(0.25\) with --lr"
    )
    with pytest.raises(NotFiniteError, match=message):
        own.step([batch(samples[:5]), batch(samples[5:])], 7, 1.0)
    after = values(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not own.optimizer.state, "nor does the optimiser remember it"


def test_the_images_of_the_part_that_is_not_finite_are_named() -> None:
    own = learner(lively("fcn8s-slim"))
    samples = [one(index) for index in range(6)]
    third = samples[2]
    broken = np.full(third.inputs[IMAGE].shape, np.inf, np.float32)
    samples[2] = Sample(third.name, {IMAGE: broken}, third.masks)
    with pytest.raises(NotFiniteError, match=r"^the loss is nan at step 7 \(images s2, s3\); lower the learning rate"):
        own.step([batch(samples[:2]), batch(samples[2:4]), batch(samples[4:])], 7, 1.0)


@pytest.mark.parametrize("part", ["weight", "running statistic", "momentum"])
def test_what_a_state_would_hold_is_finite(part: str) -> None:
    net = lively("fcn8s-slim")
    own = learner(net, replace(PLAIN, momentum=0.9))
    own.step([batch([one(0), one(1)])], 2, 1.0)
    own.require_finite(3)
    weight = net.get_parameter("heads.semantic.score.image.8.bias")
    running = next(value for name, value in net.named_buffers() if name.endswith("running_var"))
    momentum = own.optimizer.state[weight]["momentum_buffer"]
    with torch.no_grad():
        {"weight": weight, "running statistic": running, "momentum": momentum}[part][0] = math.inf
    with pytest.raises(NotFiniteError, match="^weights or averages are infinite or no numbers after step 3; lower the"):
        own.require_finite(3)


def test_a_net_of_fixed_layers_changes_its_score_layers_alone() -> None:
    net = lively("fcn8s-slim")
    before = values(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    learner(net, replace(PLAIN, fixed=True)).step([batch([one(0)])], 0, 1.0)
    changed = {name for name, value in values(net).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".score." in name}
    running = {name for name, value in net.state_dict().items() if not torch.equal(value.cpu(), state[name])} - changed
    assert not running, "statistics of batch norm stay with the weights"
