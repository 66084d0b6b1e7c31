"""Classifier files: bit-exact round trips, and no file, however hostile, that does more than be refused."""

from __future__ import annotations

import json
import math
import random
import resource
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classifiers import CLASSIFIERS, images
from fullconv.errors import GeometryError, ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import InputOptions, build
from fullconv.nets.dense import rarefy
from fullconv.nets.dense_classifier import Conformance, DenseClassifier, convolutionalize
from fullconv.nets.dilated_pool import DilatedPool
from fullconv.nets.wired import Ref, Step, Wired
from fullconv.weights import classifierfile
from fullconv.weights.classifierfile import read_classifier, write_classifier
from fullconv.weights.modelfile import FORMAT, KEY, ModelFile, read_header, read_model, read_options, write_model
from header_files import damaged, refused, require_survival, rewritten

COLOUR = InputOptions((120.0, 115.0, 100.0), (58.0, 57.0, 57.5), "bgr")


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * 4, 2)
    )


@pytest.fixture(scope="module")
def dense() -> DenseClassifier:
    torch.manual_seed(0)
    return convolutionalize(lenet(), 12, names=("a cat, cats", "Hündin"), inputs=COLOUR)


@pytest.fixture(scope="module")
def small(dense: DenseClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid file of some kilobytes."""
    path = tmp_path_factory.mktemp("classifiers") / "small.safetensors"
    write_classifier(path, dense)
    return path


def refusal(path: Path) -> str:
    return refused(read_classifier, path).replace(str(path), "PATH")


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = net(x)
        return found


class TestRoundTrip:
    @pytest.mark.parametrize("name", CLASSIFIERS)
    def test_bit_for_bit(self, name: str, tmp_path: Path) -> None:
        specimen = CLASSIFIERS[name]
        inputs = InputOptions((1.0,) * specimen.channels, (0.5,) * specimen.channels)
        dense = convolutionalize(specimen.build(), specimen.size, channels=specimen.channels, inputs=inputs)
        path = tmp_path / "runs" / "classifier.safetensors"
        write_classifier(path, dense)
        found = read_classifier(path)
        x = images(2, specimen.channels, (specimen.size[0] + 17, specimen.size[1] + 30))
        assert torch.equal(outputs(found, x), outputs(dense, x))
        before, after = dense.state_dict(), found.state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
        assert (found.input_size, found.channels, found.classes, found.stride, found.names) == (
            dense.input_size, dense.channels, dense.classes, dense.stride, dense.names
        )  # fmt: skip
        assert found.inputs == inputs
        assert found.conformance == dense.conformance is not None
        assert not any(part.training for part in found.modules())

    @pytest.mark.parametrize(
        "pool", [nn.AvgPool2d(3, 2), nn.AvgPool2d(2, 2, 1, divisor_override=3), nn.MaxPool2d(2, 2, 1)]
    )
    def test_rarefied(self, pool: nn.Module, tmp_path: Path) -> None:
        """Dilated poolings, which torch has none of."""
        net = nn.Sequential(nn.Conv2d(1, 4, 3, 2), pool, nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(3))
        net(torch.zeros(1, 1, 24, 24))
        thinned = rarefy(convolutionalize(net, 24))
        assert isinstance(thinned, DenseClassifier)
        assert any(isinstance(layer, DilatedPool) for layer in thinned.modules())
        write_classifier(tmp_path / "thinned.safetensors", thinned)
        found, x = read_classifier(tmp_path / "thinned.safetensors"), images(1, 1, (40, 33))
        assert torch.equal(outputs(found, x), outputs(thinned, x))
        assert found.stride == (1, 1)

    def test_the_header_explains_the_classifier(self, small: Path) -> None:
        header = read_header(small)
        net, conformance = header.pop("net"), header.pop("conformance")
        assert header == {
            "format": FORMAT, "kind": "classifier", "input_size": [12, 12], "channels": 3,
            "names": ["a cat, cats", "Hündin"], "channels_last": [],
            "inputs": {"mean": [120.0, 115.0, 100.0], "std": [58.0, 57.0, 57.5], "order": "bgr", "log": False},
        }  # fmt: skip
        assert set(conformance) == {"logits", "cells", "windows"}
        assert [step["kind"] for step in net["steps"]] == ["layer"] * 5

    @pytest.mark.parametrize("width", [torch.float64, torch.bfloat16, torch.float16])
    def test_other_widths_stay(self, dense: DenseClassifier, width: torch.dtype, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        other = read_classifier(small).to(width)
        write_classifier(path, other)
        found = read_classifier(path)
        x = images(1, 3, (20, 20)) * 60
        assert {each.dtype for each in found.parameters()} == {width}
        assert torch.equal(outputs(found, x), outputs(other, x))
        assert outputs(found, x).dtype == width
        assert not torch.equal(outputs(found, x).float(), outputs(dense, x))

    def test_what_is_laid_out_channels_last_stays_so(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "last.safetensors"
        other = read_classifier(small).to(memory_format=torch.channels_last)
        write_classifier(path, other)
        found = read_classifier(path)
        assert [each.stride() for each in found.parameters()] == [each.stride() for each in other.parameters()]
        assert len(read_header(path)["channels_last"]) == 2

    def test_weights_that_are_shared_are_written_for_each(self, tmp_path: Path) -> None:
        twin = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(2, 2))
        twin[2].weight = twin[0].weight
        dense = convolutionalize(twin, 5)
        write_classifier(tmp_path / "twin.safetensors", dense)
        found = read_classifier(tmp_path / "twin.safetensors")
        x = images(2, 2, (9, 9))
        assert torch.equal(outputs(found, x), outputs(dense, x))

    def test_training_goes_on(self, small: Path) -> None:
        found = read_classifier(small).train()
        found(images(2, 3, (20, 20))).sum().backward()
        assert all(each.grad is not None for each in found.parameters())

    def test_without_a_record(self, dense: DenseClassifier, tmp_path: Path) -> None:
        plain = DenseClassifier(dense.net, (12, 12), 3)
        write_classifier(tmp_path / "plain.safetensors", plain)
        found = read_classifier(tmp_path / "plain.safetensors")
        assert (found.conformance, found.inputs, found.names) == (None, None, ("0", "1"))

    def test_a_classifier_outlives_its_file(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(small.read_bytes())
        found = read_classifier(path)
        before = {name: tensor.clone() for name, tensor in found.state_dict().items()}
        with path.open("rb+") as file:
            file.write(bytes(path.stat().st_size))
        assert all(torch.equal(before[name], tensor) for name, tensor in found.state_dict().items())

    def test_any_safetensors_reader_reads_the_weights(self, small: Path, dense: DenseClassifier) -> None:
        assert load_file(small).keys() == dense.state_dict().keys()


class TestWriting:
    def test_what_cannot_be_read_is_not_written(self, dense: DenseClassifier, tmp_path: Path) -> None:
        path = tmp_path / "bad.safetensors"
        record = dense.conformance
        assert record is not None

        def written(names: tuple[str, ...] = ("a", "b"), conformance: Conformance = record) -> None:
            other = DenseClassifier(dense.net, (12, 12), 3, names)
            other.conformance = conformance
            write_classifier(path, other)

        for call, message in (
            (lambda: written(("a", "b\n")), "class name 'b\\n'; expected up to 256 printable characters: rename it"),
            (lambda: written(("", "b")), "class name ''; expected up to 256 printable characters: rename it"),
            (lambda: written(("a", "b" * 257)), "class name 'bbbb"),
            (
                lambda: written(conformance=replace(record, logits=math.nan)),
                "conformance of logits nan; expected a number of 0 to 1e+300",
            ),
            (
                lambda: written(conformance=replace(record, cells=math.inf)),
                "conformance of cells inf; expected a number of 0 to 1e+300",
            ),
        ):
            with pytest.raises(OptionError) as caught:
                call()
            assert str(caught.value).startswith(message)
        other = DenseClassifier(dense.net, (12, 12), 3)
        other.input_size = (100_000, 12)
        with pytest.raises(OptionError, match="height 100000; expected a whole number of 1 to 65536"):
            write_classifier(path, other)
        other.input_size = (60_000, 60_000)
        with pytest.raises(GeometryError, match="choose a smaller input size"):
            write_classifier(path, other)
        dense.net.layers["0"].register_forward_pre_hook(lambda *_: None)
        with pytest.raises(OptionError, match="layer '0' is a hooked Conv2d; a file holds plain"):
            write_classifier(path, dense)
        dense.net.layers["0"]._forward_pre_hooks.clear()
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_write_leaves_the_older_file(
        self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(small.read_bytes())
        found = read_classifier(path)
        require_survival(path, lambda: write_classifier(path, found), monkeypatch)


class TestKinds:
    def test_each_reader_knows_the_other_kind(self, small: Path, tmp_path: Path) -> None:
        for read in (read_model, read_options):
            with pytest.raises(ModelFileError) as caught:
                read(small)
            assert str(caught.value) == (
                f"{small} is a classifier that was convolutionalized, not a model for segmentation; it is for: "
                "fullconv heatmap"
            )
        path = tmp_path / "fcn.safetensors"
        write_model(path, ModelFile(build("fcn32s-slim", 2, width=1 / 64), {"semantic": LabelSet.numbered(2)}))
        assert refusal(path) == (
            "PATH is a model for segmentation, not a classifier that was convolutionalized; it is for: fullconv predict"
        )

    @pytest.mark.parametrize("kind", ["detector", 3, [], {"a": 1}, True, "x" * 10**6, "a\nb"])
    def test_other_kinds(self, kind: Any, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        path.write_bytes(rewritten(small, lambda h: h.update(kind=kind)))
        assert refusal(path).startswith("PATH is of the kind ")
        assert refusal(path).endswith(", which this fullconv does not know: pip install --upgrade fullconv")
        with pytest.raises(ModelFileError, match="which this fullconv does not know"):
            read_model(path)


class TestDamage:
    def test_what_every_file_of_ours_is_refused_for(self, small: Path, tmp_path: Path) -> None:
        assert "does not exist; expected a .safetensors model file" in refusal(tmp_path / "no.safetensors")
        path = tmp_path / "model.safetensors"
        path.write_bytes(rewritten(small, lambda h: h.update(format=FORMAT + 1)))
        assert "has format 2; this fullconv reads up to 1" in refusal(path)
        blob = small.read_bytes()
        for end in range(0, len(blob), 97):
            path.write_bytes(blob[:end])
            assert "cut short" in refusal(path)

    def test_wrong_weights(self, small: Path, tmp_path: Path) -> None:
        path, header = tmp_path / "model.safetensors", {KEY: json.dumps(read_header(small))}
        name, count = "net.layers.0.weight", "net.layers.1.num_batches_tracked"
        for change, message in (
            (lambda w: w.pop(name), f"lacks weight '{name}'; the net of its header does not fit: train it again"),
            (lambda w: w.update(extra=torch.zeros(1)), "has the extra weight 'extra'; the net of its header does not"),
            (
                lambda w: w.update({name: w[name][..., :2]}),
                f"weight {name} is [4, 3, 5, 2]; its header's net has [4, 3",
            ),
            (lambda w: w.update({name: w[name].int()}), f"weight {name} is of type I32; convert it to torch.float32"),
            (lambda w: w.update({name: w[name] + 0j}), f"weight {name} is of type C64; convert it to torch.float32"),
            (lambda w: w.update({count: w[count] + 0.5}), f"weight {count} is of type F32; convert it to torch.int64"),
            (lambda w: w.update({count: w[count].int()}), f"weight {count} is of type I32; convert it to torch.int64"),
        ):
            weights = load_file(small)
            change(weights)
            save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, header)
            assert message in refusal(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda h: h.pop("names"), "the header has or lacks 'names'; expected format, kind, net, input_s"),
            (lambda h: h.update(code="x"), "the header has or lacks 'code'; expected format, kind, net"),
            (lambda h: h.update(input_size=12), "input size 12; expected [height, width]"),
            (lambda h: h.update(input_size=[12, 12, 3]), "input size [12, 12, 3]; expected [height, width]"),
            (lambda h: h.update(input_size=[0, 12]), "height 0; expected a whole number of 1 to 65536"),
            (
                lambda h: h.update(input_size=[12, 10**400]),
                "width a number of 1329 bits; expected a whole number of 1 to",
            ),
            (lambda h: h.update(input_size=[12, True]), "width True; expected a whole number of 1 to 65536"),
            (lambda h: h.update(channels=1 << 17), "channels 131072; expected a whole number of 1 to 65536"),
            (lambda h: h.update(channels=4), "Wired cannot be traced at "),
            (
                lambda h: h.update(input_size=[60_000] * 2),
                "value ",
            ),
            (lambda h: h.update(input_size=[4, 4]), "Wired cannot be traced at "),
            (lambda h: h.update(names="ab"), "class names: str; expected a list of 1 to 65536"),
            (lambda h: h.update(names=[]), "class names: 0; expected a list of 1 to 65536"),
            (lambda h: h.update(names=["a"] * 70_000), "class names: 70000; expected a list of 1 to 65536"),
            (lambda h: h.update(names=["a", 2]), "class name 2; expected up to 256 printable characters: rename it"),
            (lambda h: h.update(names=["a", "\x1b[2J"]), "class name '\\x1b[2J'; expected up to 256 printable"),
            (lambda h: h.update(names=["a", "a"]), "2 names, 1 of them different; give each of the 2 classes its own"),
            (lambda h: h.update(names=["a"]), "1 names, 1 of them different; give each of the 2 classes its own"),
            (lambda h: h.update(inputs={}), "inputs are {}; expected null, or log, mean, order, std"),
            (lambda h: h.update(inputs=[1]), "inputs are [1]; expected null, or log, mean, order, std"),
            (lambda h: h["inputs"].update(mean=5), "TypeError: object of type 'int' has no len()"),
            (lambda h: h["inputs"].update(order="__class__"), "unknown channel order '__class__'"),
            (
                lambda h: h["inputs"].update(mean=[1], std=[1], order="rgb"),
                "means of 1 channels; the classifier takes 3",
            ),
            (lambda h: h.update(conformance=3), "the conformance is 3; expected null, or logits, cells and windows"),
            (lambda h: h["conformance"].update(windows="x"), "the conformance is {'logits': "),
            (
                lambda h: h["conformance"].update(logits=-1),
                "conformance of logits -1; expected a number of 0 to 1e+300",
            ),
            (
                lambda h: h["conformance"].update(cells="0"),
                "conformance of cells '0'; expected a number of 0 to 1e+300",
            ),
            (lambda h: h.update(channels_last=3), "channels_last is 3; expected names of weights of four dimensions"),
            (
                lambda h: h.update(channels_last=["net.layers.0.bias"]),
                "channels_last is ['net.layers.0.bias']; expected",
            ),
            (lambda h: h.update(channels_last=[[]]), "TypeError: unhashable type: 'list'"),
            (lambda h: h.update(net=None), "the wiring has the keys 'NoneType'; expected constants, inputs, layers"),
            (lambda h: h["net"]["steps"][0].update(target="__class__"), "step"),
        ],
    )
    def test_headers(self, change: Callable[[Any], object], message: str, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(rewritten(small, change))
        found = refusal(path)
        start = "PATH: not a usable fullconv classifier: "
        assert found.startswith(start)
        assert found[len(start) :].startswith(message)

    def test_random_mutations(self, small: Path, tmp_path: Path) -> None:
        """Bytes changed, dropped, doubled: a classifier or a ModelFileError, nothing else."""
        rng = random.Random(0)
        blob, path = small.read_bytes(), tmp_path / "model.safetensors"
        inner, failed = blob.index(KEY.encode()), 0
        for _ in range(400):
            path.write_bytes(damaged(blob, rng, [(inner, inner + 3000), (0, 3000), (0, len(blob))]))
            try:
                found = read_classifier(path)
            except ModelFileError:
                refusal(path)
                failed += 1
            else:
                assert len(found.names) == found.classes
        assert 200 < failed < 400, "the mutations should break most files but not all"


X = {"ref": "x"}


def step(name: str, target: str, *args: Any, kind: str = "function", **options: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "target": target, "args": list(args), "options": options}


def bomb(*steps: dict[str, Any], layers: Any = None, size: int = 8) -> Callable[[dict[str, Any]], object]:
    """What makes of a header one of another net without weights."""
    net = {
        "inputs": ["x"], "output": steps[-1]["name"], "steps": list(steps), "layers": layers or {}, "constants": {}
    }  # fmt: skip
    return lambda h: h.update(net=net, input_size=[size, size])


def chain(times: int, call: Callable[[str, dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """The call of itself, again and again."""
    names = ["x", *(f"s{i}" for i in range(times))]
    return [call(names[i + 1], {"ref": names[i]}) for i in range(times)]


def numbers(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps on the height n, then the input as the output of the net."""
    used = step("y", "torch.mul", X, {"ref": steps[-1]["name"]})
    return [step("n", "size", X, 2, kind="method"), *steps, used]


N = {"ref": "n"}

BOMBS: dict[str, Callable[[dict[str, Any]], object]] = {
    "expand": bomb(step("a", "expand", X, 1 << 40, -1, -1, -1, kind="method")),
    "expand and unbind": bomb(
        step("a", "expand", X, 1 << 20, -1, -1, -1, kind="method"), step("b", "torch.unbind", {"ref": "a"}),
        step("c", "operator.getitem", {"ref": "b"}, 0),
    ),
    "expand and split": bomb(
        step("a", "expand", X, 1 << 20, -1, -1, -1, kind="method"), step("b", "torch.split", {"ref": "a"}, 1),
        step("c", "operator.getitem", {"ref": "b"}, 0),
    ),
    "expand and chunk": bomb(
        step("a", "expand", X, 1 << 18, -1, -1, -1, kind="method"),
        step("b", "chunk", {"ref": "a"}, 1 << 18, kind="method"),
        step("c", "operator.getitem", {"ref": "b"}, 0),
    ),
    "tensor_split": bomb(
        step("a", "torch.tensor_split", X, 10**9, 1), step("b", "operator.getitem", {"ref": "a"}, 0)
    ),
    "repeat": bomb(step("a", "repeat", X, 1 << 20, 1 << 20, 1, 1, kind="method")),
    "chunks of chunks": bomb(
        step("a", "expand", X, 1000, -1, -1, -1, kind="method"),
        *(step(f"c{i}", "torch.chunk", {"ref": "a"}, 1000) for i in range(2000)),
        step("z", "torch.cat", [{"ref": "a"}, {"ref": "a"}]),
        *(step(f"d{i}", "operator.getitem", {"ref": f"c{i}"}, 0) for i in range(2000)),
        *(step(f"e{i}", "torch.add", {"ref": f"d{i}"}, {"ref": f"e{i - 1}" if i else "d0"}) for i in range(90)),
    ),
    "padding": bomb(step("a", "functional.pad", X, [10**9] * 4)),
    "padding that is taken back": bomb(
        step("a", "functional.pad", X, [10**9] * 4), step("b", "functional.pad", {"ref": "a"}, [-(10**9)] * 4)
    ),
    "repeated": bomb(step("a", "torch.repeat_interleave", X, 1 << 40, 2)),
    "response norm of all": bomb(step("a", "functional.local_response_norm", X, 10**9)),
    "enlarged": bomb(*chain(6, lambda name, at: step(name, "functional.interpolate", at, scale_factor=64))),
    "joined with itself": bomb(*chain(60, lambda name, at: step(name, "torch.cat", [at, at], 1))),
    "powers": bomb(*numbers(step("p", "operator.pow", N, N), step("q", "operator.pow", {"ref": "p"}, {"ref": "p"}))),
    "squares": bomb(*numbers(*[
        step(f"p{i}", "operator.mul", *[{"ref": f"p{i - 1}"} if i else N] * 2) for i in range(60)
    ])),
    "doubled tuples": bomb(
        step("t0", "size", X, kind="method"),
        *(step(f"t{i + 1}", "operator.add", {"ref": f"t{i}"}, {"ref": f"t{i}"}) for i in range(60)),
        step("y", "view", X, {"ref": "t60"}, kind="method"),
    ),
    "repeated tuples": bomb(
        step("t", "size", X, kind="method"), step("u", "operator.mul", {"ref": "t"}, 10**9),
        step("y", "view", X, {"ref": "u"}, kind="method"),
    ),
    "repeated lists": bomb(*numbers(step("l", "operator.mul", [1, 2], 10**9))),
    "repeated words": bomb(*numbers(step("l", "operator.mul", "floor", 10**9))),
    "many dimensions": bomb(*chain(4000, lambda name, at: step(name, "unsqueeze", at, 0, kind="method"))),
    "reshaped": bomb(step("a", "view", X, 1 << 62, 1 << 62, kind="method")),
    "made anew": bomb(step("a", "torch.full_like", X, 1, dtype={"torch": "float64"}), size=60_000),
    "transposed": bomb(
        step("a", "c", X, kind="layer"),
        layers={"c": {"class": "ConvTranspose2d", "frozen": [], "options": {
            "in_channels": 3, "out_channels": 1, "kernel_size": 64, "stride": 64, "padding": 0, "dilation": 4096,
            "groups": 1, "bias": False, "padding_mode": "zeros", "output_padding": 0}}},
        size=4000,
    ),
    "huge channels": bomb(
        step("a", "c", X, kind="layer"),
        layers={"c": {"class": "Conv2d", "frozen": [], "options": {
            "in_channels": 3, "out_channels": 1 << 24, "kernel_size": 8, "stride": 1, "padding": 0, "dilation": 1,
            "groups": 1, "bias": False, "padding_mode": "zeros"}}},
    ),
    "a device": bomb(step("a", "to", X, "cuda", kind="method")),
    "no output": bomb(step("a", "size", X, kind="method")),
    "a vector": bomb(step("a", "flatten", X, kind="method")),
    "the whole map": bomb(step("a", "mean", X, [2, 3], True, kind="method")),
    "random": bomb(step("a", "torch.rand_like", X), size=60_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, small: Path, tmp_path: Path) -> None:
    """Each is refused in one line, without building what it describes."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(small, BOMBS[name]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_a_net_of_as_many_steps_as_a_file_may_have(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(rewritten(small, bomb(*chain(4096, lambda name, at: step(name, "torch.relu", at)))))
    assert "give each of the 3 classes its own" in refusal(path)


def nested() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.sampled_from(
        ["x", "0", "relu", "layer", "method", "__class__", "__init__", "_modules", "torch.relu", "", "a" * 1000]
    )  # fmt: skip
    return st.recursive(
        plain | st.builds(lambda: {"ref": "x"}),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["ref", "slice", "tuple", "torch", "class", "__class__"]), inner, max_size=2
            )
        ),
        max_leaves=8,
    )


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_headers(small: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Anything anywhere in the header: a classifier or a ModelFileError."""

    def change(header: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            holder: Any = header
            while True:
                keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
                if not keys:
                    break
                key = data.draw(st.sampled_from(keys))
                if isinstance(holder[key], dict | list) and data.draw(st.integers(0, 4)):
                    holder = holder[key]
                    continue
                if data.draw(st.booleans()):
                    holder[key] = data.draw(nested())
                else:
                    del holder[key]
                break

    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(rewritten(small, change))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found = read_classifier(path)
    except ModelFileError:
        refusal(path)
    else:
        assert len(found.names) == found.classes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize(
    ("bound", "value", "message"),
    [
        ("MAX_PARTS", 2, "a tensor is split into 3; expected up to 2"),
        ("MAX_NUMBERS", 100, "numbers in 4 dimensions, at its input size; expected up to 100000 values of 100 in 16: "),
        ("MAX_TENSORS", 2, "within the net has "),
        (
            "MAX_RANK",
            3,
            " in 4 dimensions, at its input size; expected up to 100000 values of 268435456 in 3: choose a",
        ),
    ],
)
def test_the_bounds_can_be_reached(
    bound: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch, small: Path, tmp_path: Path
) -> None:
    """The messages of what is bounded while a net runs on shapes alone."""
    path = tmp_path / "model.safetensors"
    split = [step("b", "torch.split", X, 1, dim=1), step("c", "operator.getitem", {"ref": "b"}, 0)]
    path.write_bytes(rewritten(small, bomb(*split, step("z", "torch.relu", {"ref": "c"}))))
    assert "different; give each" in refusal(path)
    monkeypatch.setattr(classifierfile, bound, value)
    assert message in refusal(path)


def test_nets_of_numbers_as_classifiers_have_them(tmp_path: Path) -> None:
    """A channel shuffle as people write it: sizes, divided and joined."""
    steps = [
        Step("c", "method", "size", (Ref("x"), 1)),
        Step("g", "function", "operator.floordiv", (Ref("c"), 2)),
        Step("h", "method", "size", (Ref("x"), 2)),
        Step("w", "method", "size", (Ref("x"), 3)),
        Step("n", "method", "size", (Ref("x"), 0)),
        Step("a", "method", "view", (Ref("x"), Ref("n"), 2, Ref("g"), Ref("h"), Ref("w"))),
        Step("b", "method", "transpose", (Ref("a"), 1, 2)),
        Step("d", "method", "reshape", (Ref("b"), Ref("n"), -1, Ref("h"), Ref("w"))),
        Step("y", "layer", "conv", (Ref("d"),)),
    ]
    dense = DenseClassifier(Wired({"conv": nn.Conv2d(4, 3, 3)}, steps, ["x"], "y").eval(), (3, 3), 4)
    write_classifier(tmp_path / "shuffle.safetensors", dense)
    x = images(2, 4, (7, 9))
    assert torch.equal(outputs(read_classifier(tmp_path / "shuffle.safetensors"), x), outputs(dense, x))
