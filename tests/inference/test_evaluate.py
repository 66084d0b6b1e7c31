"""Scoring against a plain loop: the net's own scores, argmax, and pixels counted one by one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fullconv
from fullconv.data import open_dataset
from fullconv.data.check import CachedDataset
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.data.tiles import TiledDataset, tiles_of
from fullconv.errors import DataError, ModelFileError, OptionError
from fullconv.inference.evaluate import Evaluation, ImageScore, Measures, evaluate, evaluate_net, require_fit
from fullconv.inference.model import Model
from fullconv.labels import VOID, LabelSet
from fullconv.metrics import BoundaryF, ConfusionMatrix, Trimap
from fullconv.nets import FCN, InputOptions, build
from inmemory import LABELS, InMemory, one
from makers import make_folder, make_nyud

SIZES = [(12, 16), (12, 16), (1, 37), (30, 9), (12, 16), (40, 50)]


@pytest.fixture(scope="module")
def net() -> FCN:
    torch.manual_seed(3)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    return net.eval()


def count(net: FCN, data: InMemory, task: str = SEMANTIC) -> np.ndarray:
    """The confusion matrix, by the textbook."""
    classes = len(data.labels[task])
    matrix = np.zeros((classes, classes), np.int64)
    for sample in data.samples:
        images = {name: torch.from_numpy(image).permute(2, 0, 1)[None] for name, image in sample.inputs.items()}
        with torch.no_grad():
            scores = net(images)
        best = (scores if isinstance(scores, torch.Tensor) else scores[task])[0].argmax(0)
        height, width = sample.size
        for y in range(height):
            for x in range(width):
                truth = int(sample.masks[task][y, x])
                if truth != VOID:
                    matrix[truth, int(best[y, x])] += 1
    return matrix


def test_equals_a_plain_loop_at_native_resolution(net: FCN) -> None:
    data = InMemory([one(seed, size) for seed, size in enumerate(SIZES)], "val")
    seen: list[tuple[int, int]] = []
    evaluation = evaluate_net(net, data, progress=lambda *args: seen.append(args))
    expected = count(net, data)
    assert np.array_equal(evaluation.matrix.counts, expected)
    assert seen == [(index, len(SIZES)) for index in range(1, len(SIZES) + 1)]
    # The four numbers of reference 6, from the matrix by hand.
    true, right = expected.sum(axis=1), np.diagonal(expected)
    union = true + expected.sum(axis=0) - right
    scores = evaluation.scores
    assert scores.pixel_accuracy == pytest.approx(right.sum() / expected.sum())
    assert scores.mean_accuracy == pytest.approx((right / true).mean())
    assert scores.mean_iu == pytest.approx((right / union).mean())
    assert scores.fw_iu == pytest.approx((true * right / union).sum() / expected.sum())


def test_several_inputs_and_tasks() -> None:
    torch.manual_seed(0)
    net = build(
        "fcn8s-slim", {"kind": 3, "side": 2}, channels={"colour": 3, "depth": 1}, width=0.1, fusion="late"
    ).eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            str(index),
            {name: rng.integers(0, 256, (*size, c), dtype=np.uint8) for name, c in (("colour", 3), ("depth", 1))},
            {"kind": rng.integers(0, 3, size, dtype=np.uint8), "side": rng.integers(0, 2, size, dtype=np.uint8)},
        )
        for index, size in enumerate(SIZES[:4])
    ]
    data = InMemory(
        samples, "val", {"kind": LABELS, "side": LabelSet.numbered(2)}, {"colour": InputKind(), "depth": InputKind(1)}
    )
    evaluation = evaluate_net(net, data)
    for task in ("kind", "side"):
        assert np.array_equal(evaluation.matrices[task].counts, count(net, data, task))
    assert evaluation.scores == evaluation.matrices["kind"].scores()


def test_a_model_file_and_a_folder(net: FCN, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "d")
    Model(net, LABELS).save(tmp_path / "m.safetensors")
    for split in ("val", "train"):
        samples = open_dataset(data, split)
        expected = count(net, InMemory([samples[i] for i in range(len(samples))], split))
        assert np.array_equal(fullconv.evaluate(tmp_path / "m.safetensors", data, split).matrix.counts, expected)
    with pytest.raises(DataError, match="has no split 'tset'; its splits: train, val, test"):
        evaluate(Model(net, LABELS), str(data), "tset")
    with pytest.raises(ModelFileError, match="does not exist"):
        evaluate(tmp_path / "none.safetensors", data)


def test_bfloat16_is_close(net: FCN) -> None:
    data = InMemory([one(seed, size) for seed, size in enumerate(SIZES)], "val")
    exact, near = evaluate_net(net, data).matrix.counts, evaluate_net(net, data, "bfloat16").matrix.counts
    assert np.array_equal(exact.sum(axis=1), near.sum(axis=1))
    assert 0 < np.abs(exact - near).sum() < 0.1 * exact.sum()


def test_the_nets_mode_stays(net: FCN) -> None:
    net.train()
    evaluate_net(net, InMemory([one(0)], "val"))
    assert net.training
    net.eval()


def test_void_alone_gives_no_numbers(net: FCN) -> None:
    sample = one(0)
    void = Sample("v", sample.inputs, {SEMANTIC: np.full_like(sample.masks[SEMANTIC], VOID)})
    assert math.isnan(evaluate_net(net, InMemory([void], "val")).scores.mean_iu)


def test_other_names_are_refused_though_their_number_fits(net: FCN) -> None:
    model = Model(net, LabelSet(("ground", "car", "road")))
    data = InMemory([one(0)], "val", {SEMANTIC: LabelSet(("ground", "road", "car"))})
    message = "the model's classes are ground, car, road; the data's are ground, road, car: score it on data with"
    with pytest.raises(OptionError, match=message):
        evaluate(model, data)


def test_other_numbers_of_classes_and_inputs_are_refused(net: FCN) -> None:
    four = InMemory([one(0)], "val", {SEMANTIC: LabelSet.numbered(4)})
    with pytest.raises(OptionError, match=r"the net has \{'semantic': 3\} .*the data \{'semantic': 4\}; use data with"):
        evaluate_net(net, four)
    other = InMemory([one(0)], "val", {"kind": LABELS})
    with pytest.raises(OptionError, match=r"the data \{'kind': 3\}"):
        evaluate(Model(net, LABELS), other)
    radar = InMemory([one(0)], "val", inputs={"radar": InputKind(2)})
    with pytest.raises(OptionError, match=r"the net takes \{'image': 3\} .*the data has \{'radar': 2\}"):
        evaluate_net(net, radar)
    require_fit(net.options, InMemory([one(0)], "val"))
    assert net.options.inputs.keys() == {IMAGE}


def test_a_file_that_turned_bad_is_named(net: FCN, tmp_path: Path) -> None:
    data = make_folder(tmp_path)
    opened = open_dataset(data, "val")
    (data / "val" / "images" / f"{opened.names[1]}.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"{opened.names[1]}.png: is empty"):
        evaluate_net(net, opened)


def predictions(net: FCN, data: InMemory) -> list[np.ndarray]:
    """The label maps, one image after the other."""
    with torch.no_grad():
        return [
            net(torch.from_numpy(sample.inputs[IMAGE]).permute(2, 0, 1)[None])[0].argmax(0).numpy()
            for sample in data.samples
        ]


def test_boundary_and_trimap_are_those_of_the_predictions(net: FCN) -> None:
    data = InMemory([one(seed, size) for seed, size in enumerate(SIZES)], "val")
    plain = evaluate_net(net, data)
    assert (plain.boundary, plain.trimap) == ({}, {})
    found = evaluate_net(net, data, measures=Measures(boundary="5%", trimap=(1, 3)))
    boundary, trimap = BoundaryF(3, "5%"), Trimap(3, (1, 3))
    for sample, predicted in zip(data.samples, predictions(net, data), strict=True):
        boundary.update(sample.masks[SEMANTIC], predicted)
        trimap.update(sample.masks[SEMANTIC], predicted)
    assert found.boundary[SEMANTIC].scores() == boundary.scores()
    assert found.trimap[SEMANTIC].counts.tolist() == trimap.counts.tolist()
    assert found.boundary[SEMANTIC].counts[1].any()
    assert found.scores == plain.scores


def test_every_image_has_its_own_scores_and_the_worst_come_first(net: FCN) -> None:
    void = Sample("v", one(9).inputs, {SEMANTIC: np.full_like(one(9).masks[SEMANTIC], VOID)})
    wide = one(5, (40, 50))  # where the net finds classes that are not in this truth:
    ground = Sample("g", wide.inputs, {SEMANTIC: np.zeros_like(wide.masks[SEMANTIC])})
    data = InMemory([*(one(seed, size) for seed, size in enumerate(SIZES)), ground, void], "val")
    evaluation = evaluate_net(net, data)
    images = evaluation.images[SEMANTIC]
    assert [image.name for image in images] == list(data.names)
    for image, sample, predicted in zip(images, data.samples, predictions(net, data), strict=True):
        truth = sample.masks[SEMANTIC]
        counted = truth != VOID
        if not counted.any():
            assert math.isnan(image.mean_iu)
            assert math.isnan(image.error)
            continue
        assert image.error == pytest.approx((truth != predicted)[counted].mean())
        ious = [
            ((truth == k) & (predicted == k)).sum() / (((truth == k) | (predicted == k)) & counted).sum()
            for k in np.unique(truth[counted])
        ]
        assert image.mean_iu == pytest.approx(np.mean(ious))
    worst = evaluation.worst(3)
    scored = [image.mean_iu for image in images if image.name not in ("s2", "v")]
    assert [image.mean_iu for image in worst] == sorted(scored)[:3]
    assert len(evaluation.worst(99)) == len(scored), "an image that is all void, as the one of one row, is no bad one"


def test_of_equal_images_the_one_with_more_errors_is_worse() -> None:
    images = [ImageScore("a", 0.5, 0.1), ImageScore("b", 0.5, 0.3), ImageScore("c", 0.2, 0.1)]
    evaluation = Evaluation({"x": ConfusionMatrix(1)}, images={"x": images})
    assert [image.name for image in evaluation.worst(2)] == ["c", "b"]
    with pytest.raises(OptionError, match="0 worst images; expected 1 or more"):
        evaluation.worst(0)


def test_the_rule_for_absent_classes_is_the_data_sets_or_the_callers(net: FCN) -> None:
    sample = one(5, (40, 50))
    ground = Sample("g", sample.inputs, {SEMANTIC: np.zeros_like(sample.masks[SEMANTIC])})

    def mean_iu(rule: dict[str, str], absent: str | None = None) -> float:
        data = InMemory([ground], "val")
        data.absent = rule
        return evaluate(Model(net, LABELS), data, absent=absent).scores.mean_iu

    matrix = evaluate_net(net, InMemory([ground], "val")).matrix
    predicted, excluded = matrix.scores("predicted").mean_iu, matrix.scores("excluded").mean_iu
    assert predicted < excluded
    assert mean_iu({}) == mean_iu({SEMANTIC: "predicted"}) == mean_iu({"other": "excluded"}) == predicted
    assert mean_iu({SEMANTIC: "excluded"}) == excluded
    assert mean_iu({SEMANTIC: "excluded"}, "predicted") == predicted
    assert mean_iu({}, "excluded") == excluded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"absent": "never"}, "unknown rule for absent classes 'never'"),
        ({"boundary": 0}, "boundary tolerance '0'; expected pixels above 0"),
        ({"trimap": (3, 1)}, "trimap widths 3, 1; expected pixels from 1, ascending"),
    ],
)
def test_measures_that_cannot_work(net: FCN, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        evaluate(Model(net, LABELS), InMemory([one(0)], "val"), **options)


PROCESS = """
import json, sys
from pathlib import Path
import torch
from torch import distributed, nn
from fullconv.inference.evaluate import Measures, evaluate_net
from fullconv.nets import build
from inmemory import InMemory, one

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(3)
net = build("fcn8s-slim", 3, width=0.1)
for parameter in net.heads.parameters():
    nn.init.normal_(parameter)
net.eval()
measures = Measures(boundary=2, trimap=(1, 4))
if world > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
found = {}
for images in (7, 1):
    data = InMemory([one(seed, (12 + seed % 3, 16)) for seed in range(images)], "val")
    seen = []
    evaluation = evaluate_net(net, data, progress=lambda *args: seen.append(args), measures=measures)
    found[images] = {
        "counts": evaluation.matrix.counts.tolist(),
        "boundary": evaluation.boundary["semantic"].counts.tolist(),
        "trimap": evaluation.trimap["semantic"].counts.tolist(),
        "images": [[image.name, image.mean_iu, image.error] for image in evaluation.images["semantic"]],
        "seen": seen,
    }
if world > 1:
    distributed.destroy_process_group()
(folder / f"{rank}-of-{world}.json").write_text(json.dumps(found))
"""


def test_two_processes_that_share_a_data_set_count_exactly_what_one_does(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(world), str(tmp_path)],
            cwd=tests,  # where the helpers lie
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, world in ((0, 1), (0, 2), (1, 2))
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    whole, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    for images in ("7", "1"):
        assert np.sum(whole[images]["counts"]) > 0
        for share in (first, second):
            for what in ("counts", "boundary", "trimap", "images"):
                assert share[images][what] == whole[images][what], (images, what)
    assert [first["7"]["seen"][-1], second["7"]["seen"][-1]] == [[4, 4], [3, 3]], "each counts its own share"
    assert [first["1"]["seen"], second["1"]["seen"]] == [[[1, 1]], []]


def test_other_bands_are_refused() -> None:
    image = Sample("a", {IMAGE: np.zeros((8, 9, 2), np.uint16)}, {SEMANTIC: np.zeros((8, 9), np.uint8)})
    data = InMemory([image], "val", inputs={IMAGE: InputKind(2, (4, 3))})
    net = build("fcn8s-slim", 3, channels=2, width=0.1).options
    require_fit(net, data)  # a net that knows no bands takes any
    own = replace(net, inputs={IMAGE: InputOptions((0.0, 0.0), (1.0, 1.0), bands=(3, 4))})
    with pytest.raises(OptionError, match=r"the net takes the bands \[3, 4\] of input 'image', the data has \[4, 3\]"):
        require_fit(own, data)


def test_a_net_that_takes_some_of_the_inputs_is_scored_on_all_of_them(tmp_path: Path) -> None:
    root = make_nyud(tmp_path / "nyud")
    trained = fullconv.train(root, steps=1, out=tmp_path / "run", inputs=["color"], net_options={"width": 0.1})
    assert set(open_dataset(root, "val").inputs) == {"color", "depth", "hha"}
    scores = evaluate(trained.model, root).scores
    assert trained.scores is not None
    np.testing.assert_array_equal(scores.iu, trained.scores.iu)  # nan equals nan here


def test_the_rule_of_a_data_set_holds_through_training(tmp_path: Path) -> None:
    """A class that is predicted and never true counts in one rule, and not in the other."""
    data = InMemory([one(0)], "val")
    data.absent = {SEMANTIC: "excluded"}
    assert CachedDataset(data, {}).absent == TiledDataset(data, tiles_of([(12, 16)], 8)).absent == data.absent
    net = build("fcn8s-slim", 3, width=0.1)
    for cached in (data, CachedDataset(data, {})):
        assert evaluate_net(net, cached).rule(SEMANTIC) == "excluded"
