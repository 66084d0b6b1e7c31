"""Model files: bit-exact round trips, and no file, however damaged or hostile, that does more than be refused."""

from __future__ import annotations

import json
import math
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fullconv.errors import ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import FCN, build
from fullconv.weights import modelfile
from fullconv.weights.modelfile import FORMAT, KEY, ModelFile, read_header, read_model, write_model
from header_files import damaged, raw, refused, require_survival, rewritten, with_header

CLASSES = {"semantic": 3, "geometric": 2}


def labelled(net: FCN) -> dict[str, LabelSet]:
    return {task: LabelSet.numbered(count) for task, count in net.options.classes.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model of some kilobytes."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    torch.manual_seed(0)
    net = build("fcn16s-slim", 2, channels=1, width=1 / 64)
    write_model(path, ModelFile(net, labelled(net), {"steps": 3}, {"mean_iu": 0.5}))
    return path


def refusal(path: Path) -> str:
    return refused(read_model, path)


class TestRoundTrip:
    @pytest.mark.parametrize("upsampling", ["bilinear", "learned", "learned-all"])
    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-vgg16", "fcn1s-slim"])
    def test_bit_for_bit(self, name: str, upsampling: str, tmp_path: Path) -> None:
        net = build(
            name, CLASSES, channels={"colour": 3, "depth": 1}, fusion="late", padding="paper",
            upsampling=upsampling, width=1 / 64, dropout=0.25,
        )  # fmt: skip
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.1, 1)
                else:
                    tensor.fill_(7)
        labels = {
            "semantic": LabelSet(("sky", "see", "Gebäude"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))),
            "geometric": LabelSet.numbered(2),
        }
        training, metrics = {"seed": 1, "recipe": {"lr": 1e-10}}, {"mean_iu": 0.655, "classes": [0.5, None]}
        path = tmp_path / "runs" / "best.safetensors"
        write_model(path, ModelFile(net, labels, training, metrics))
        again = read_model(path)
        assert again.net.options == net.options
        assert (again.labels, again.training, again.metrics) == (labels, training, metrics)
        before, after = net.state_dict(), again.net.state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
        assert not again.net.training
        x = {"colour": torch.rand(2, 3, 20, 33) * 255, "depth": torch.rand(2, 1, 20, 33) * 255}
        net.eval()
        with torch.no_grad():
            expected, scores = net(x), again.net(x)
        assert all(torch.equal(expected[task], scores[task]) for task in CLASSES)
        again.net.train()(x)["semantic"].sum().backward()  # its weights can be trained on

    def test_weights_are_laid_out_as_in_a_fresh_net(self, small: Path) -> None:
        net = read_model(small).net
        assert net.trunks["image"].conv3_1.weight.is_contiguous(memory_format=torch.channels_last)

    def test_the_header_explains_the_model(self, small: Path) -> None:
        header = read_header(small)
        assert header == {
            "format": FORMAT,
            "net": {
                "trunk": "slim", "stride": 16, "classes": {"semantic": 2},
                "inputs": {"image": {"mean": [127.5], "std": [64.0], "order": "rgb", "log": False}},
                "fusion": "early", "padding": "same", "upsampling": "bilinear", "dropout": 0.1, "width": 1 / 64,
                "scales": {},
            },
            "labels": {"semantic": {"names": ["0", "1"], "colours": [[0, 0, 0], [128, 0, 0]]}},
            "training": {"steps": 3},
            "metrics": {"mean_iu": 0.5},
        }  # fmt: skip

    def test_any_safetensors_reader_reads_the_weights(self, small: Path) -> None:
        assert load_file(small).keys() == read_model(small).net.state_dict().keys()

    def test_half_precision_files_are_widened(self, small: Path, tmp_path: Path) -> None:
        weights = {name: t.half() if t.is_floating_point() else t for name, t in load_file(small).items()}
        path = tmp_path / "half.safetensors"
        save_file(weights, path, {KEY: json.dumps(read_header(small))})
        net = read_model(path).net
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        assert all(
            torch.equal(net.state_dict()[name], t.to(net.state_dict()[name].dtype)) for name, t in weights.items()
        )

    def test_a_model_outlives_its_file(self, small: Path, tmp_path: Path) -> None:
        """Weights that map the file would change, or crash the process, when another is copied over it."""
        path = tmp_path / "model.safetensors"
        path.write_bytes(small.read_bytes())
        net = read_model(path).net
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        with path.open("rb+") as file:
            file.write(bytes(path.stat().st_size))
        assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())

    def test_wrong_labels_and_records_are_not_written(self, small: Path, tmp_path: Path) -> None:
        net, path = read_model(small).net, tmp_path / "model.safetensors"
        labels = labelled(net)
        for bad, message in (
            (
                ModelFile(net, {"semantic": LabelSet.numbered(3)}),
                "labels for {'semantic': 3}; the net has {'semantic': 2}",
            ),
            (ModelFile(net, {}), "labels for {}; the net has {'semantic': 2}"),
            (ModelFile(net, labels, {"loss": math.nan}), "training and metrics must be plain JSON with finite numbers"),
            (ModelFile(net, labels, {}, {"map": {1, 2}}), "training and metrics must be plain JSON"),
        ):
            with pytest.raises(OptionError, match=message):
                write_model(path, bad)
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_write_leaves_the_older_model(
        self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(small.read_bytes())
        model = read_model(path)
        require_survival(path, lambda: write_model(path, model), monkeypatch)


class TestDamage:
    def test_missing_and_folder(self, tmp_path: Path) -> None:
        assert "does not exist; expected a .safetensors model file such as" in refusal(tmp_path / "no.safetensors")
        assert "is a folder; expected a .safetensors model file such as" in refusal(tmp_path)

    def test_unreadable(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", deny)
        assert "cannot be read ([Errno 13] Permission denied)" in refusal(small)

    @pytest.mark.parametrize("content", [b"", b"\0", b"garbage", b"PK\x03\x04" + bytes(5000), bytes(9), b"{" * 64])
    def test_garbage(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        assert "is no safetensors file, or cut short; copy or train the model again" in refusal(path)

    def test_cut_short_anywhere(self, small: Path, tmp_path: Path) -> None:
        blob, path = small.read_bytes(), tmp_path / "model.safetensors"
        header = 8 + struct.unpack("<Q", blob[:8])[0]
        places = {*range(10), header - 1, header, header + 1, len(blob) - 1, *range(10, len(blob), len(blob) // 60)}
        for end in places:
            path.write_bytes(blob[:end])
            message = refusal(path)
            assert ("is no safetensors file, or cut short" if end < header else "is damaged (") in message
        path.write_bytes(blob + b"\0")
        assert "is damaged (" in refusal(path)

    def test_bare_weights(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        for metadata in (None, {}, {"format": "pt"}):
            save_file(load_file(small), path, metadata)
            assert "has no 'fullconv' header; expected a model written by fullconv, not bare weights" in refusal(path)
        odd = b'{"__metadata__": 3}', b'{"__metadata__": {"fullconv": 3}}', b'{"a": {"data_offsets": []}}'
        for text in (b"[1]", b"33", b'"x"', *odd):
            path.write_bytes(raw(text))
            assert "has no 'fullconv' header" in refusal(path)

    def test_headers_that_are_no_json(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        for text in (b"{]", b"\xff\xfe{}", b'{"a": 1', b"[" * 100_000, b'{"a":' * 100_000):
            path.write_bytes(raw(text))
            assert "the header is damaged (" in refusal(path)
        for inner in ("{", "[" * 100_000, '{"net":' * 100_000, "9" * 5000):
            path.write_bytes(raw({"__metadata__": {KEY: inner}}))
            assert "the header is damaged (" in refusal(path)

    def test_wrong_weights(self, small: Path, tmp_path: Path) -> None:
        path, header = tmp_path / "model.safetensors", {KEY: json.dumps(read_header(small))}
        name, count = "trunks.image.conv1_1.weight", "trunks.image.bn1_1.num_batches_tracked"
        for change, message in (
            (lambda w: w.pop(name), f"lacks weight '{name}'; the net of its header does not fit: train it again"),
            (lambda w: w.update(extra=torch.zeros(1)), "has the extra weight 'extra'; the net of its header does not"),
            (lambda w: w.update({"a\nb" * 99: torch.zeros(1)}), "has the extra weight 'a\\nb"),
            (lambda w: w.update({name: w[name][..., :2]}), f"weight {name} is [1, 1, 3, 2]; its header's net has [1,"),
            (lambda w: w.update({name: w[name].flatten()}), f"weight {name} is [9]; its header's net has [1, 1, 3, 3]"),
            (lambda w: w.update({name: w[name].int()}), f"weight {name} is of type I32; convert it to torch.float32"),
            (lambda w: w.update({name: w[name].bool()}), f"weight {name} is of type BOOL; convert it to torch.float32"),
            (lambda w: w.update({name: w[name] + 0j}), f"weight {name} is of type C64; convert it to torch.float32"),
            (lambda w: w.update({count: w[count] + 0.5}), f"weight {count} is of type F32; convert it to torch.int64"),
            (lambda w: w.clear(), "lacks weight "),
        ):  # fmt: skip
            weights = load_file(small)
            change(weights)
            save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, header)
            assert message in refusal(path)

    def test_formats(self, small: Path, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        for version, message in (
            (FORMAT + 1, f"has format 2; this fullconv reads up to {FORMAT}: pip install --upgrade fullconv"),
            (10**9, "has format 1000000000; this fullconv reads up to"),
            *((bad, "the header names no format version") for bad in (None, "1", 1.0, True, 0, -1, [1], math.nan)),
        ):
            path.write_bytes(rewritten(small, lambda h, v=version: h.update(format=v)))
            assert message in refusal(path)
        for header in ("[]", "3", "null", '"text"'):
            path.write_bytes(with_header(small, header))
            assert "the header names no format version" in refusal(path)


DEEP = json.loads("[" * 400 + "]" * 400)

HOSTILE: list[Callable[[dict[str, Any]], object]] = [
    lambda h: h["net"].update(trunk="vgg16"),  # 540 MB, if it were built
    *(lambda h, k=k, v=v: h.update({k: v}) for k in ("net", "labels", "training", "metrics")
      for v in (3, None, [], "x", [["a", 1]], DEEP)),
    *(lambda h, k=k, v=v: h["net"].update({k: v})
      for k in ("trunk", "stride", "classes", "inputs", "fusion", "padding", "upsampling", "dropout", "width")
      for v in (None, True, "1", "x" * 10**6, "a\nb", -1, 10**9, 10**300, 1e308, math.nan, math.inf, [], {}, [1], DEEP,
                {"a": DEEP}, {"semantic": 10**9}, {"semantic": "2"}, {"semantic": True}, {"keys": 2}, {"\n": 2},
                {"image": {"mean": [0]}}, {"image": {"mean": [0] * 10**5, "std": [1] * 10**5}},
                {"image": {"mean": [10**400], "std": [1]}}, {"image": {"mean": ["0"], "std": ["1"]}},
                {"image": {"mean": [math.nan], "std": [1]}}, {"image": {"mean": [0], "std": [0]}},
                {"training": {"mean": [0], "std": [1]}})),
    *(lambda h, k=k: h["net"].pop(k) for k in ("trunk", "stride", "classes", "inputs")),
    *(lambda h, v=v: h["labels"].update(semantic=v)
      for v in (3, "x", None, [], {}, {"names": "ab"}, {"names": ["a"]}, {"names": ["a", "a"]}, {"names": 2},
                {"names": ["a", "b"], "colours": [[0, 0, 0]]}, {"names": ["a", "b"], "colours": [[0, 0, 0.5]] * 2},
                {"names": list(range(10**5))}, {"names": ["a", "b"], "colours": "xy"})),
    lambda h: h.pop("net"),
    lambda h: h.pop("labels"),
    lambda h: h["net"].update(widht=1),
    lambda h: h["net"].update(width=4, trunk="vgg16"),
    lambda h: h["net"].update(trunk="vgg16", width=4, upsampling="learned-all", fusion="late",
                              classes={f"t{i}": 255 for i in range(16)},
                              inputs={f"i{i}": {"mean": [0] * 1024, "std": [1] * 1024} for i in range(16)})
    or h.update(labels={f"t{i}": {"names": [str(n) for n in range(255)]} for i in range(16)}),
]  # fmt: skip


def test_hostile_headers(small: Path, tmp_path: Path) -> None:
    """Each is refused in one line, quickly, and without building what it describes."""
    path = tmp_path / "model.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for change in HOSTILE:
        path.write_bytes(rewritten(small, change))
        refusal(path)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < 300, f"{grown:.0f} MiB were taken; the last net of the list would take 130 GiB"


def test_a_huge_header_length_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (2**63, 2**64 - 1, 2**40, modelfile.MAX_HEADER + 1, 1000):
        path.write_bytes(struct.pack("<Q", length) + b"{}" * 400)
        assert "is no safetensors file, or cut short" in refusal(path)
    with path.open("wb") as file:  # a sparse file that really is that long
        file.write(struct.pack("<Q", 2**33))
        file.truncate(2**34)
    assert path.stat().st_size == 2**34
    assert "is no safetensors file, or cut short" in refusal(path)


def test_random_mutations(small: Path, tmp_path: Path) -> None:
    """Bytes changed, dropped, doubled and moved: a valid model or a ModelFileError, nothing else."""
    rng = random.Random(0)
    blob, path = small.read_bytes(), tmp_path / "model.safetensors"
    header = 8 + struct.unpack("<Q", blob[:8])[0]
    inner = blob.index(KEY.encode())
    places = (0, 8), (8, header), (inner, inner + 900), (0, len(blob))
    failed = 0
    for _ in range(800):
        path.write_bytes(damaged(blob, rng, places))
        try:
            model = read_model(path)
        except ModelFileError:
            refusal(path)
            failed += 1
        else:
            assert {task: len(labels) for task, labels in model.labels.items()} == model.net.options.classes
    assert 400 < failed < 800, "the mutations should break most files but not all"


@pytest.mark.parametrize("name", ["fcn32s-heavy-pascal.caffemodel", "resnet18.pth"])
def test_weights_of_other_tools_are_sent_to_convert(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\xff" * 100)
    assert refusal(tmp_path / name) == (
        f"{tmp_path / name} is no fullconv model; make one of it with: "
        f"fullconv convert {tmp_path / name} --net NET -o MODEL"
    )
