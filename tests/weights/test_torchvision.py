"""torchvision's files: every net's logits are its re-implementation's, and no file does more than be refused."""

from __future__ import annotations

import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fullconv.errors import ModelFileError, OptionError
from fullconv.nets import InputOptions
from fullconv.nets.classifier import Classifier
from fullconv.nets.fcn import Normalise
from fullconv.nets.trunks import TRUNKS
from fullconv.weights.torchvision import MAX_CLASSES, TorchvisionFile, read_torchvision
from fullconv.weights.torchvision_names import TORCHVISION
from torchvision_nets import NETS, Net, random_images, random_net, shape_of

TRUNK = {
    "alexnet": "alexnet-owt",
    "vgg16": "vgg16",
    "vgg16_bn": "vgg16bn",
    "googlenet": "googlenetbn",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
}
"""torchvision's name -> ours."""

PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}
"""Reference 2.6; GoogLeNet without auxiliary heads."""

TENSORS = {"resnet18": (102, 122), "resnet34": (182, 218), "resnet50": (267, 320)}
"""Reference 2.6: without and with batch norm's counters."""

WIDTH, CLASSES = 1 / 8, 10

COUNTER = "num_batches_tracked"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Where a test writes its file, which does not stay: some have half a gigabyte."""
    path = tmp_path / "net.pth"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    """A thin net of each kind, as its state dict."""
    return {name: thin(name).state_dict() for name in NETS}


def thin(name: str) -> Net:
    return random_net(name, WIDTH, CLASSES)


def classifier(file: TorchvisionFile, trunk: str, width: float, inputs: InputOptions | None = None) -> Classifier:
    """The classifier of a file, holding the file's own tensors."""
    net = file.classifier(trunk, width)
    if inputs is not None:
        net.normalise = Normalise(inputs)
    return net


def disagreement(net: Classifier, oracle: Net, count: int = 2) -> float:
    """The largest difference of logits at 224 x 224, in units of their spread."""
    images = random_images(count, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got, expected = net(images), oracle(images)
    assert got.shape == (*expected.shape, 1, 1)
    assert 0.5 < expected.std() < 2
    return float((got[:, :, 0, 0] - expected).abs().max() / expected.std())


def read_thin(path: Path, name: str, **options: Any) -> TorchvisionFile:
    return read_torchvision(path, TRUNK[name], width=WIDTH, **options)


def message(path: Path, trunk: str = "resnet18", width: float = WIDTH) -> str:
    """What a file is refused with: one short line that names it."""
    with pytest.raises(ModelFileError) as caught:
        read_torchvision(path, trunk, width)
    text = str(caught.value)
    assert text.startswith(f"{path}")
    assert text.isprintable()
    assert len(text) < len(str(path)) + 450
    return text.removeprefix(f"{path}")


class TestLogits:
    @pytest.mark.parametrize("name", NETS)
    def test_are_those_of_the_plain_net(self, name: str, file: Path) -> None:
        oracle = thin(name)
        torch.save(oracle.state_dict(), file)
        found = read_thin(file, name)
        # In double precision: in single, either alone is up to 5e-6 away from it.
        assert disagreement(classifier(found, TRUNK[name], WIDTH).double(), oracle.double()) < 1e-5
        assert found.missing == []

    @pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet50"])
    def test_at_full_width(self, name: str, file: Path) -> None:
        oracle = random_net(name)
        torch.save(oracle.state_dict(), file)
        net = classifier(read_torchvision(file, TRUNK[name]), TRUNK[name], 1.0)
        assert disagreement(net, oracle, count=1) < 1e-5

    @pytest.mark.parametrize("name", NETS)
    def test_the_comparison_sees_another_order_or_normalisation(self, name: str, file: Path) -> None:
        oracle = thin(name)
        torch.save(oracle.state_dict(), file)
        found = read_thin(file, name)
        right = found.inputs
        for wrong in (
            replace(right, order="bgr"),
            replace(right, mean=(right.mean[0] + 1, *right.mean[1:])),
            replace(right, std=(*right.std[:2], right.std[2] * 1.01)),
            InputOptions(right.mean[::-1], right.std) if name != "googlenet" else replace(right, std=(128.0,) * 3),
        ):
            assert disagreement(classifier(found, TRUNK[name], WIDTH, wrong), oracle) > 1e-4

    @pytest.mark.parametrize("name", ["alexnet", "vgg16_bn", "googlenet", "resnet18"])
    def test_the_comparison_sees_a_change_of_any_tensor(self, name: str, file: Path) -> None:
        oracle = thin(name)
        torch.save(oracle.state_dict(), file)
        net = classifier(read_thin(file, name), TRUNK[name], WIDTH)
        blind = []
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                some = tensor[: max(1, len(tensor) // 4)]  # one filter alone may be of a unit that is never positive
                kept = some.clone()
                some += tensor.abs().max() / 10
                if disagreement(net, oracle, count=1) < 1e-4:
                    blind.append(key)
                some.copy_(kept)
        assert blind == []
        assert disagreement(net, oracle, count=1) < 2e-5


class TestCounts:
    @pytest.mark.parametrize("name", PARAMETERS)
    def test_of_parameters(self, name: str) -> None:
        with torch.device("meta"):
            net = Classifier(TRUNK[name])
        plain = {key: p for key, p in shape_of(name).named_parameters() if not key.startswith("aux")}
        assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
        assert sum(p.numel() for p in plain.values()) == PARAMETERS[name]

    @pytest.mark.parametrize("name", TENSORS)
    def test_of_tensors(self, name: str, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        bare, full = TENSORS[name]
        torch.save(states[name], file)
        found = read_thin(file, name)
        assert len(found.weights) + len(found.score) == len(found.sources) + 2 == len(states[name]) == full
        torch.save({key: value for key, value in states[name].items() if not key.endswith(COUNTER)}, file)
        found = read_thin(file, name)
        assert len(found.weights) + len(found.score) - len(found.missing) == bare


class TestKeyMap:
    @pytest.mark.parametrize("name", NETS)
    def test_is_invertible_and_covers_the_trunk_and_the_file(self, name: str) -> None:
        names, kind = TORCHVISION[TRUNK[name]], TRUNKS[TRUNK[name]]
        with torch.device("meta"):
            trunk = kind.build(3, kind.padding, kind.dropout, 1.0).state_dict()
        sources = {key: names.source(key) for key in trunk}
        keys = {source: key for key, source in sources.items()}
        assert {key: keys[source] for key, source in sources.items()} == {key: key for key in trunk}
        stored = shape_of(name).state_dict()
        assert set(sources.values()) == {key for key in stored if not names.unwanted(key)}
        unwanted = {".".join(key.split(".")[: 2 if name.startswith(("alex", "vgg")) else 1]) for key in stored} - {
            ".".join(source.split(".")[: 2 if name.startswith(("alex", "vgg")) else 1]) for source in sources.values()
        }
        assert unwanted == {
            "alexnet": {"classifier.6"}, "vgg16": {"classifier.6"}, "vgg16_bn": {"classifier.6"},
            "googlenet": {"aux1", "aux2", "fc"},
        }.get(name, {"fc"})  # fmt: skip

    def test_every_trunk_has_its_net(self) -> None:
        assert set(TORCHVISION) == set(TRUNK.values())

    @pytest.mark.parametrize(
        ("name", "key", "source"),
        [
            ("alexnet", "conv4.bias", "features.8.bias"),
            ("alexnet", "fc6.weight", "classifier.1.weight"),
            ("vgg16", "conv5_3.weight", "features.28.weight"),
            ("vgg16_bn", "bn3_1.running_mean", "features.15.running_mean"),
            ("googlenet", "conv1.bn_7x7_s2.weight", "conv1.bn.weight"),
            ("googlenet", "inception_4e.5x5_reduce.weight", "inception4e.branch3.0.conv.weight"),
            ("googlenet", "inception_3a.bn_pool_proj.bias", "inception3a.branch4.1.bn.bias"),
            ("resnet50", "layer2.0.downsample.1.running_var", "layer2.0.downsample.1.running_var"),
        ],
    )
    def test_says_where_a_weight_is(
        self, name: str, key: str, source: str, states: dict[str, dict[str, Tensor]], file: Path
    ) -> None:
        torch.save(states[name], file)
        found = read_thin(file, name)
        assert found.sources[key] == source
        assert found.shapes[key] == states[name][source].shape
        assert torch.equal(found.weights[key].flatten(), states[name][source].flatten())

    def test_what_is_dropped(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save(states["googlenet"], file)
        dropped = read_thin(file, "googlenet").dropped
        assert {key.split(".")[0] for key in dropped} == {"aux1", "aux2", "fc"}
        assert len(dropped) == 2 * (6 + 2 + 2) + 2
        torch.save(states["vgg16"], file)
        assert read_thin(file, "vgg16").dropped == ["classifier.6.weight", "classifier.6.bias"]


class TestInputs:
    def test_are_those_of_the_published_nets(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        for name, state in states.items():
            torch.save(state, file)
            inputs = read_thin(file, name).inputs
            half = name == "googlenet"
            assert inputs.order == "rgb"
            assert inputs.mean == pytest.approx((127.5,) * 3 if half else [255 * m for m in (0.485, 0.456, 0.406)])
            assert inputs.std == pytest.approx((127.5,) * 3 if half else [255 * s for s in (0.229, 0.224, 0.225)])


class TestForms:
    """Every way in which such files are written gives the same."""

    def same(self, path: Path, state: dict[str, Tensor], name: str = "resnet18") -> TorchvisionFile:
        found = read_thin(path, name)
        for key, source in found.sources.items():
            if source in state:
                assert found.weights[key].dtype == (torch.int64 if key.endswith(COUNTER) else torch.float32)
                assert torch.equal(found.weights[key].flatten(), state[source].flatten()), key
        return found

    def test_old_files_that_cannot_be_mapped(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        for name, state in states.items():
            torch.save(state, file, _use_new_zipfile_serialization=False)
            assert file.read_bytes()[:2] != b"PK"
            self.same(file, state, name)

    @pytest.mark.parametrize("key", ["state_dict", "model"])
    def test_a_checkpoint_that_holds_it(self, key: str, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save({key: states["resnet18"], "epoch": 3, "best": 0.5}, file)
        self.same(file, states["resnet18"])

    def test_of_a_net_on_several_devices(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save({f"module.{key}": value for key, value in states["resnet18"].items()}, file)
        assert self.same(file, states["resnet18"]).sources["conv1.weight"] == "conv1.weight"

    def test_parameters(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        state = OrderedDict(
            (key, nn.Parameter(value) if value.is_floating_point() else value)
            for key, value in states["resnet18"].items()
        )
        torch.save(state, file)
        found = self.same(file, states["resnet18"])
        assert not any(tensor.requires_grad for tensor in (*found.weights.values(), *found.score.values()))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_floats(self, dtype: torch.dtype, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in states["alexnet"].items()}
        torch.save(state, file)
        found = self.same(file, {key: value.float() for key, value in state.items()}, "alexnet")
        assert found.score["weight"].dtype == found.score["bias"].dtype == torch.float32

    def test_without_counters(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        state = {key: value for key, value in states["googlenet"].items() if not key.endswith(COUNTER)}
        torch.save(state, file)
        found = self.same(file, state, "googlenet")
        assert len(found.missing) == 57  # convolutions: 3 and 6 in each of 9 modules
        assert found.sources.keys() == found.shapes.keys() == found.weights.keys()
        for key in found.missing:
            assert key.endswith(COUNTER)
            assert torch.equal(found.weights[key], torch.tensor(0))
        assert disagreement(classifier(found, "googlenetbn", WIDTH), thin("googlenet")) < 1e-5

    def test_without_the_last_layer(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        state = {key: value for key, value in states["resnet18"].items() if not key.startswith("fc")}
        torch.save(state, file)
        found = self.same(file, state)
        assert found.score == {}
        assert found.dropped == []

    def test_the_score_is_the_last_layer(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save(states["vgg16"], file)
        score = read_thin(file, "vgg16").score
        assert score["weight"].shape == (CLASSES, 512, 1, 1)
        assert torch.equal(score["weight"][:, :, 0, 0], states["vgg16"]["classifier.6.weight"])
        assert torch.equal(score["bias"], states["vgg16"]["classifier.6.bias"])

    @pytest.mark.skipif(sys.platform != "linux", reason="what a map shows of a change is the system's affair")
    @pytest.mark.parametrize("key", ["conv1_1.bias", "fc6.weight"])
    def test_a_zip_file_is_mapped_and_not_copied(
        self, key: str, states: dict[str, dict[str, Tensor]], file: Path
    ) -> None:
        torch.save(states["vgg16"], file)
        found = read_thin(file, "vgg16")
        stored = found.weights[key].numpy().tobytes()
        at = file.read_bytes().index(stored)
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes(len(stored)))
        assert found.weights[key].count_nonzero() == 0


class TestFeaturesOnly:
    def test_vgg_with_a_classifier_of_nan(self, file: Path) -> None:
        """Reference 2.6: Caffe's weights for RGB, (123, 117, 104) subtracted, nothing scaled."""
        oracle = thin("vgg16")
        state = {k: v.fill_(torch.nan) if k.startswith("classifier") else v for k, v in oracle.state_dict().items()}
        torch.save(state, file)
        found = read_thin(file, "vgg16")
        assert found.missing == ["fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"]
        assert found.score == {}
        assert found.inputs == InputOptions((123, 117, 104), (1, 1, 1), "rgb")
        assert found.dropped == ["classifier.6.weight", "classifier.6.bias"]
        assert found.sources.keys() == found.shapes.keys() == found.weights.keys()
        assert len(found.weights) == 26
        oracle.mean, oracle.std = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)
        features: list[Tensor] = []
        cast(nn.Sequential, oracle.features).register_forward_hook(lambda *call: features.append(call[-1]))
        net = Classifier("vgg16", CLASSES, found.inputs, WIDTH)
        net.trunk.load_state_dict(found.weights, strict=False)
        image = random_images(1, torch.Generator().manual_seed(2))
        with torch.inference_mode():
            oracle(image)
            got = image
            for layer in (net.normalise, *list(net.trunk)[: list(net.trunk._modules).index("pool5") + 1]):
                got = layer(got)
        assert (got - features[0]).abs().max() / features[0].std() < 5e-4  # the means are declared to five digits

    @pytest.mark.parametrize("name", ["vgg16_bn", "alexnet"])
    def test_is_known_of_vgg16_alone(self, name: str, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save({k: v * (torch.nan if "classifier" in k else 1) for k, v in states[name].items()}, file)
        assert "holds NaN or infinity" in message(file, TRUNK[name])

    def test_needs_all_of_the_classifier_to_be_nan(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        state = {k: v * (torch.nan if "classifier" in k else 1) for k, v in states["vgg16"].items()}
        torch.save(state | {"classifier.3.bias": states["vgg16"]["classifier.3.bias"]}, file)
        assert "weight classifier.0.weight holds NaN or infinity as float32; expected finite" in message(file, "vgg16")


class TestOtherNets:
    @pytest.mark.parametrize("trunk", TRUNKS)
    @pytest.mark.parametrize("name", ["alexnet", "vgg16", "vgg16_bn", "googlenet", "resnet34", "resnet50", "resnet101"])
    def test_are_called_by_name(self, name: str, trunk: str, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        if TRUNK[name] == trunk:
            return
        torch.save(states[name], file)
        expected = f" holds the weights of {TRUNK[name]}; expected those of {trunk}: use --net fcn32s-{TRUNK[name]}"
        assert message(file, trunk) == expected

    def test_that_are_unknown(self, file: Path) -> None:
        torch.save({"stem.weight": torch.zeros(1)}, file)
        assert message(file, "vgg16") == (
            " lacks the weight 'features.0.weight'; expected the weights of torchvision's vgg16 and no others: "
            "use the net that the file is of"
        )
        assert message(file, "slim") == (
            ": no file of torchvision's fits slim; choose a net of alexnet-owt, vgg16, vgg16bn, googlenetbn, resnet18, "
            "resnet34, resnet50, resnet101"
        )
        with pytest.raises(OptionError, match="unknown trunk 'vgg19'; did you mean 'vgg16'"):
            read_torchvision(file, "vgg19")

    def test_with_layers_more(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save(states["resnet34"] | {"layer4.3.conv1\n\x1b.weight" + 9999 * "x": torch.zeros(1)}, file)
        assert message(file, "resnet34").startswith(" has the extra weight 'layer4.3.conv1\\n\\x1b.weightxxx")
        torch.save(states["resnet18"] | {"aux1.conv.weight": torch.zeros(1)}, file)
        assert "has the extra weight 'aux1.conv.weight'" in message(file)

    @pytest.mark.parametrize("key", ["layer3.1.bn2.running_var", "conv1.weight", "fc.bias", "fc.weight"])
    def test_with_a_weight_less(self, key: str, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save({k: v for k, v in states["resnet18"].items() if k != key}, file)
        assert f" lacks the weight '{key}'; expected" in message(file)

    def test_of_another_width(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save(states["resnet18"], file)
        assert message(file, "resnet18", 1.0) == (
            ": weight conv1.weight is [8, 3, 7, 7] of float32; expected [64, 3, 7, 7] of float64, float32, float16 or "
            "bfloat16: use the net that the file is of"
        )


HUGE = (1 << 20, 1 << 20)


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch '{self.target}'",)


class TestHostileFiles:
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_nothing_of_a_pickle_is_executed(self, protocol: int, legacy: bool, file: Path, tmp_path: Path) -> None:
        target = tmp_path / "executed"
        content = {"fc.weight": Bomb(target)}
        if legacy:
            file.write_bytes(pickle.dumps(content, protocol))
        else:
            torch.save(content, file, pickle_protocol=protocol)
        text = message(file)
        assert " cannot be read as a .pth of weights (UnpicklingError: " in text
        assert text.endswith("; copy or download it again, or write one with torch.save(model.state_dict(), PATH)")
        assert "weights_only" not in text  # torch's advice to load it all the same
        assert not target.exists()
        pickle.loads(pickle.dumps(content))  # the bomb is one
        assert target.exists()

    def test_a_whole_module(self, file: Path) -> None:
        torch.save(nn.Linear(2, 2), file)
        assert "torch.nn.modules.linear.Linear" in message(file)

    @pytest.mark.parametrize(
        "content", [b"", b"<html>not found</html>", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(1000), b"PK\x03\x04" * 99]
    )
    def test_noise(self, content: bytes, file: Path) -> None:
        file.write_bytes(content)
        text = message(file)
        assert " cannot be read as a .pth of weights (" in text or " holds no state dict; write one" in text

    @pytest.mark.parametrize("zipped", [True, False])
    def test_files_that_are_cut_short(
        self, zipped: bool, states: dict[str, dict[str, Tensor]], file: Path, tmp_path: Path
    ) -> None:
        torch.save(states["resnet18"], file, _use_new_zipfile_serialization=zipped)
        blob, cut = file.read_bytes(), tmp_path / "cut.pth"
        for share in (0.01, 0.1, 0.5, 0.9, 0.999):
            cut.write_bytes(blob[: int(share * len(blob))])
            assert " cannot be read as a .pth of weights (" in message(cut)

    @pytest.mark.parametrize(
        "content",
        [[torch.zeros(1)], {}, torch.zeros(2), {1: torch.zeros(1)}, {"state_dict": {}}, {"model": {2: 3}}, None, 7],
    )
    def test_what_is_no_state_dict(self, content: object, file: Path) -> None:
        torch.save(content, file)
        assert message(file) == " holds no state dict; write one with torch.save(model.state_dict(), PATH)"

    @pytest.mark.parametrize(
        ("key", "value", "found", "expected"),
        [
            ("conv1.weight", 3, "no tensor (int)", "[8, 3, 7, 7] of float64, float32, float16 or bfloat16"),
            ("conv1.weight", {"a": [1]}, "no tensor (dict)", "[8, 3, 7, 7]"),
            ("bn1.weight", torch.zeros(8).long(), "[8] of int64", "[8]"),
            ("bn1.weight", torch.zeros(8).to(torch.complex64), "[8] of complex64", "[8]"),
            ("bn1.weight", torch.zeros(8).bool(), "[8] of bool", "[8]"),
            ("bn1.weight", torch.zeros(8).to(torch.float8_e5m2), "[8] of float8_e5m2", "[8]"),
            ("bn1.weight", torch.zeros(8).to_sparse(), "[8] of float32, sparse_coo", "[8]"),
            ("bn1.weight", torch.zeros(8, device="meta"), "[8] without values", "[8]"),
            ("bn1.weight", torch.zeros(2, 4), "[2, 4] of float32", "[8]"),
            ("bn1.weight", torch.zeros(1).expand(HUGE), "[1048576, 1048576] of float32", "[8]"),
            ("bn1.weight", torch.zeros(1).expand(64 * (1,)), f"{str([1] * 64)[:100]} of float32", "[8]"),
            ("bn1.num_batches_tracked", torch.zeros(()), "[] of float32", "[] of int64"),
            ("bn1.num_batches_tracked", torch.tensor(0).expand(HUGE), "[1048576, 1048576] of int64", "[] of int64"),
            ("fc.weight", torch.zeros(CLASSES, 65), f"[{CLASSES}, 65] of float32", f"[{CLASSES}, 64]"),
            ("fc.weight", torch.zeros(CLASSES, 64, 1, 1), f"[{CLASSES}, 64, 1, 1] of float32", f"[{CLASSES}, 64]"),
            ("fc.bias", torch.zeros(CLASSES).long(), f"[{CLASSES}] of int64", f"[{CLASSES}]"),
            ("fc.bias", torch.zeros(()), "[] of float32", f"[K] for 1 to {MAX_CLASSES} classes"),
            ("fc.bias", torch.zeros(0), "[0] of float32", f"[K] for 1 to {MAX_CLASSES} classes"),
            ("fc.bias", torch.zeros(1).expand(1 << 40), "[1099511627776] of float32", f"[K] for 1 to {MAX_CLASSES}"),
            ("fc.bias", "text", "no tensor (str)", f"[K] for 1 to {MAX_CLASSES} classes"),
        ],
    )  # fmt: skip
    def test_values_of_another_kind(
        self, key: str, value: object, found: str, expected: str, states: dict[str, dict[str, Tensor]], file: Path
    ) -> None:
        torch.save({**states["resnet18"], key: value}, file)
        assert f": weight {key} is {found}; expected {expected}" in message(file)

    @pytest.mark.filterwarnings("ignore")  # torch has reasons to warn of both
    def test_quantised_and_nested_tensors(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        quantised = torch.quantize_per_tensor(torch.zeros(8), 0.1, 0, torch.quint8)
        nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(6)])
        for key in ("bn1.weight", "fc.bias"):
            torch.save(states["resnet18"] | {key: nested}, file)
            assert f": weight {key} is a nested tensor; expected [" in message(file)
            torch.save(states["resnet18"] | {key: quantised}, file)
            assert f": weight {key} is [8] of quint8; expected [" in message(file)

    def test_an_expanded_tensor_of_the_right_shape_costs_no_more_than_the_weight(self, file: Path) -> None:
        state = {key: torch.zeros(1).expand(value.shape) for key, value in shape_of("vgg16").state_dict().items()}
        torch.save(state, file)
        assert file.stat().st_size < 50_000
        found = read_torchvision(file, "vgg16")
        assert sum(tensor.untyped_storage().nbytes() for tensor in found.weights.values()) < 50_000 * len(found.weights)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("key", ["conv1.weight", "layer4.1.bn2.running_var", "fc.weight", "fc.bias"])
    def test_values_that_are_not_finite(
        self, key: str, value: float, states: dict[str, dict[str, Tensor]], file: Path
    ) -> None:
        state = {k: v.clone() for k, v in states["resnet18"].items()}
        state[key].view(-1)[-1] = value
        torch.save(state, file)
        assert message(file) == (
            f": weight {key} holds NaN or infinity as float32; expected finite numbers: copy or download the file again"
        )

    def test_doubles_beyond_float32(self, states: dict[str, dict[str, Tensor]], file: Path) -> None:
        torch.save(states["resnet18"] | {"bn1.bias": torch.full((8,), 1e39, dtype=torch.float64)}, file)
        assert "weight bn1.bias holds NaN or infinity as float32" in message(file)

    def test_paths_that_are_no_such_file(self, tmp_path: Path) -> None:
        assert message(tmp_path / "none.pth") == " does not exist; expected a .pth file of torchvision's"
        assert message(tmp_path) == " is a folder; expected a .pth file of torchvision's"
        save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
        assert message(tmp_path / "model.safetensors") == (
            " is a safetensors file; fullconv's own models need no conversion; expected torchvision's .pth"
        )
        (tmp_path / "VGG.CaffeModel").write_bytes(b"\n\x03net")
        assert message(tmp_path / "VGG.CaffeModel") == (
            " is a Caffe model; read it as one, into a trunk of Caffe's such as --net fcn32s-vgg16; "
            "expected torchvision's .pth"
        )

    def test_a_path_of_odd_characters_stays_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError) as caught:
            read_torchvision(tmp_path / "a\nb.pth", "vgg16")
        assert str(caught.value).startswith(f"{tmp_path}/a\\nb.pth does not exist")
