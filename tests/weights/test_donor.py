"""What a donor takes from a file: the quirks of reference 9.3, and every file that it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from caffe_nets import CaffeNet, bilinear, caffe_net, opencv_scores
from caffe_writer import encode, message, number, varint, write_caffemodel
from fullconv.errors import FullconvError, ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions, build
from fullconv.weights.donor import Checked, Donor
from fullconv.weights.modelfile import ModelFile, write_model
from fullconv.weights.read import read_donor
from fullconv.weights.transplant import transplant
from torchvision_nets import random_net

WIDTH = 1 / 16
Array = NDArray[np.float32]
Layers = list[tuple[str, str, list[Array]]]


def empty(name: str, **options: object) -> FCN:
    """A thin net without memory for its weights."""
    with torch.device("meta"):
        return build(name, **{"width": WIDTH, **options})  # type: ignore[arg-type]


def layers_of(name: str, **changed: Sequence[Array]) -> Layers:
    """A thin Caffe net's layers, some of them with other blobs."""
    layers = caffe_net(name, (32, 32), width=WIDTH).layers
    assert set(changed) <= {layer for layer, _, _ in layers}
    return [(layer, kind, list(changed.get(layer, blobs))) for layer, kind, blobs in layers]


def blobs_of(layers: Layers, name: str) -> list[Array]:
    return next(blobs for layer, _, blobs in layers if layer == name)


def read(folder: Path, layers: Layers, net: str | FCN, legacy_shapes: bool = False) -> Donor:
    path = folder / "f.caffemodel"
    write_caffemodel(path, layers, legacy_shapes=legacy_shapes)
    return read_donor(path, empty(net) if isinstance(net, str) else net)


def refusal(folder: Path, layers: Layers, net: str | FCN, kind: type[FullconvError] = ModelFileError) -> str:
    """The message of the refusal without the path, one line that can be printed."""
    with pytest.raises(kind) as caught:
        read(folder, layers, net)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(folder / "f.caffemodel"))
    return message.removeprefix(str(folder / "f.caffemodel")).removeprefix(":").strip()


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class TestUpsampling:
    """Released models store bilinear weights; ours are computed (reference pitfalls 3 and 4)."""

    def test_dense_bilinear_weights_are_dropped(self, tmp_path: Path) -> None:
        donor = read(tmp_path, layers_of("voc-fcn8s"), "voc-fcn8s")
        assert not [key for key in donor.weights if "upscore" in key]
        assert donor.unused == ()
        assert donor.checked == (
            Checked("upscore2", (21, 21, 4, 4), "heads.semantic.upscore.16", "bilinear, as computed"),
            Checked("upscore_pool4", (21, 21, 4, 4), "heads.semantic.upscore.8", "bilinear, as computed"),
            Checked("upscore8", (21, 21, 16, 16), "heads.semantic.upscore.output", "bilinear, as computed"),
        )

    def test_grouped_bilinear_weights_are_dropped(self, tmp_path: Path) -> None:
        grouped = np.repeat(bilinear((1, 1, 64, 64)), 21, axis=0)
        assert grouped.shape == (21, 1, 64, 64)
        donor = read(tmp_path, layers_of("voc-fcn32s", upscore=[grouped]), "voc-fcn32s")
        assert not [key for key in donor.weights if "upscore" in key]
        assert donor.unused == ()
        assert [(each.name, each.shape) for each in donor.checked] == [("upscore", (21, 1, 64, 64))]

    @pytest.mark.parametrize("grouped", [False, True])
    @pytest.mark.parametrize(("by", "accepted"), [(5e-7, True), (2e-6, False)])
    def test_rounding_is_no_difference(self, by: float, accepted: bool, grouped: bool, tmp_path: Path) -> None:
        weight = bilinear((21, 21, 4, 4))
        if grouped:
            weight = weight[range(21), range(21)][:, None].copy()
        weight[3, 0 if grouped else 3, 0, 0] += np.float32(by)
        layers = layers_of("voc-fcn16s", upscore2=[weight])
        if accepted:
            assert not [key for key in read(tmp_path, layers, "voc-fcn16s").weights if "upscore" in key]
        else:
            assert "upscore2 differs from bilinear upsampling by 2e-06" in refusal(tmp_path, layers, "voc-fcn16s")

    def test_others_are_refused_where_upsampling_is_fixed(self, tmp_path: Path) -> None:
        crosstalk = bilinear((21, 21, 64, 64))
        crosstalk[4, 5, 10, 10] = 0.25
        layers = layers_of("voc-fcn32s", upscore=[crosstalk])
        expected = (
            "upscore differs from bilinear upsampling by 0.25, and this net's is fixed; add --upsampling learned-all"
        )
        assert refusal(tmp_path, layers, "voc-fcn32s") == expected
        assert refusal(tmp_path, layers, empty("voc-fcn32s", upsampling="learned")) == expected

    @pytest.mark.parametrize("grouped", [False, True])
    def test_others_are_kept_where_it_is_learned(self, grouped: bool, tmp_path: Path) -> None:
        weight = noise(21, 1 if grouped else 21, 64, 64) * np.float32(1 / 64)
        net = empty("voc-fcn32s", upsampling="learned-all")
        donor = read(tmp_path, layers_of("voc-fcn32s", upscore=[weight]), net)
        assert donor.checked == ()
        done = transplant(net, [donor])
        entry = next(entry for entry in done.entries if "upscore" in entry.key)
        assert (entry.how, entry.source, entry.source_shape) == ("copied", "upscore", weight.shape)
        image = torch.randint(0, 256, (1, 3, 40, 53), generator=torch.Generator().manual_seed(0)).float()
        with torch.inference_mode():
            coarse = net.eval().coarse(image)["semantic"].scores
            wide = F.conv_transpose2d(coarse, torch.from_numpy(weight), stride=32, groups=21 if grouped else 1)
            expected = wide[:, :, 19 : 19 + 40, 19 : 19 + 53]
            torch.testing.assert_close(net(image), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_the_intermediate_ones_alone(self, tmp_path: Path) -> None:
        """As in the CVPR text: the last upsampling is fixed, the others learned."""
        weight = noise(21, 21, 4, 4)
        net = empty("voc-fcn16s", upsampling="learned")
        donor = read(tmp_path, layers_of("voc-fcn16s", upscore2=[weight]), net)
        [(key, given)] = [(key, given) for key, given in donor.weights.items() if "upscore" in key]
        assert key == "heads.semantic.upscore.16.weight"
        assert np.array_equal(given.tensor.numpy(), weight)

    @pytest.mark.parametrize(
        ("shape", "shown"),
        [
            ((21, 21, 63, 63), "21x21x63x63"),
            ((21, 21, 64, 63), "21x21x64x63"),
            ((21, 20, 64, 64), "21x20x64x64"),
            ((21, 64, 64), "21x64x64"),
            ((0, 0, 64, 64), "0x0x64x64"),
            ((0, 1, 64, 64), "0x1x64x64"),
            ((256, 1, 64, 64), "256x1x64x64"),
            ((), "a single number"),
        ],
        ids=str,
    )
    def test_of_another_shape(self, shape: tuple[int, ...], shown: str, tmp_path: Path) -> None:
        layers = layers_of("voc-fcn32s", upscore=[np.ones(shape, np.float32)])
        assert refusal(tmp_path, layers, empty("voc-fcn32s", upsampling="learned-all")) == (
            f"upscore is {shown}; the net's is KxKx64x64 with up to 255 classes K: "
            "choose the net that the file was made for"
        )


class TestScales:
    """The fixed factors of the at-once net."""

    @pytest.mark.parametrize("net", ["voc-fcn8s-atonce", "voc-fcn8s"])
    def test_equal_ones_are_one_number(self, net: str, tmp_path: Path) -> None:
        layers = layers_of("voc-fcn8s-atonce")
        assert blobs_of(layers, "scale_pool4")[0].dtype == np.float32
        donor = read(tmp_path, layers, net)
        assert donor.scales == {16: 0.01, 8: 0.0001}  # as typed, not the float32 nearest to it
        assert donor.unused == ()
        assert donor.checked[:2] == (
            Checked("scale_pool4", (32,), "scale 16s", "factor 0.01 on every channel"),
            Checked("scale_pool3", (16,), "scale 8s", "factor 0.0001 on every channel"),
        )
        weight = donor.weights["heads.semantic.score.image.16.weight"].tensor.numpy()
        assert np.array_equal(weight, blobs_of(layers, "score_pool4")[0])

    @pytest.mark.parametrize("net", ["voc-fcn8s-atonce", "voc-fcn8s"])
    def test_differing_ones_are_multiplied_into_the_scores(self, net: str, tmp_path: Path) -> None:
        size = (37, 53)
        rng = np.random.default_rng(0)
        oracle = caffe_net("voc-fcn8s-atonce", size, width=WIDTH, seed=3)
        layers = [
            (name, kind, [rng.uniform(-2, 2, blobs[0].shape).astype(np.float32)] if kind == "Scale" else blobs)
            for name, kind, blobs in oracle.layers
        ]
        oracle = CaffeNet(oracle.prototxt, layers, oracle.inputs, oracle.outputs)
        target = empty(net)
        donor = read(tmp_path, layers, target)
        assert donor.scales == {}
        assert donor.unused == ()
        assert {each.how for each in donor.checked[:2]} == {"a factor a channel, multiplied into the score weights"}
        transplant(target, [donor])
        image = rng.integers(0, 256, (3, *size)).astype(np.float32)
        prepared = image[::-1] - np.array((104.00698793, 116.66876762, 122.67891434), np.float32)[:, None, None]
        expected = opencv_scores(oracle, {"data": prepared}, tmp_path)["score"]
        with torch.inference_mode():
            scores = target.eval()(torch.from_numpy(image)[None])[0].numpy()
        assert np.abs(scores - expected).max() < 1e-4 * np.abs(expected).max()

    @pytest.mark.parametrize(("shape", "shown"), [((31,), "31"), ((0,), "0"), ((16, 2), "16x2")])
    def test_of_another_shape(self, shape: tuple[int, ...], shown: str, tmp_path: Path) -> None:
        layers = layers_of("voc-fcn8s-atonce", scale_pool4=[np.full(shape, 0.01, np.float32)])
        expected = f"scale_pool4 is {shown}; the net has 32: choose the net that the file was made for"
        assert refusal(tmp_path, layers, "voc-fcn8s-atonce") == expected

    def test_with_a_bias(self, tmp_path: Path) -> None:
        layers = layers_of("voc-fcn8s-atonce", scale_pool3=[noise(16), noise(16)])
        assert refusal(tmp_path, layers, "voc-fcn8s-atonce") == (
            "scale_pool3 has 2 blobs; expected 1: choose the net that the file was made for"
        )

    def test_of_skips_that_the_net_does_not_have(self, tmp_path: Path) -> None:
        donor = read(tmp_path, layers_of("voc-fcn8s-atonce"), "voc-fcn16s")
        assert donor.scales == {16: 0.01}
        skip = ("upscore_pool4 (Deconvolution)", "scale_pool3 (Scale)", "score_pool3 (Convolution)")
        assert donor.unused == (*skip, "upscore8 (Deconvolution)")


def test_a_32s_file_in_a_16s_net(tmp_path: Path) -> None:
    """Reference 9.3: score_pool4 is left at zero, upscore is ignored."""
    net = empty("voc-fcn16s")
    donor = read(tmp_path, layers_of("voc-fcn32s"), net)
    assert donor.unused == ("upscore (Deconvolution)",)
    done = transplant(net, [donor])
    zero = [f"heads.semantic.score.image.16.{kind}" for kind in ("weight", "bias")]
    assert [entry.key for entry in done.entries if entry.how == "zero"] == zero
    assert not any(net.get_parameter(key).any() for key in zero)
    assert done.dropped == ("upscore (Deconvolution)",)


def test_layers_without_blobs_are_ignored(tmp_path: Path) -> None:
    """A snapshot holds data, loss and Split layers; those of a name of ours too."""
    plain = layers_of("voc-fcn32s")
    snapshot: Layers = [("data", "Python", []), ("data_data_0_split", "Split", [])]
    snapshot += [*plain, ("pool4_pool4_0_split", "Split", []), ("fc6", "Dropout", []), ("loss", "SoftmaxWithLoss", [])]
    one, two = (read(tmp_path, layers, "voc-fcn32s") for layers in (plain, snapshot))
    assert list(one.weights) == list(two.weights)
    assert all(torch.equal(one.weights[key].tensor, two.weights[key].tensor) for key in one.weights)
    assert two.unused == ()


@pytest.mark.parametrize(
    ("file", "net", "unused"),
    [
        ("vgg16", "fcn8s-vgg16", ("fc8 (InnerProduct)",)),
        ("caffenet", "fcn32s-alexnet", ("fc8 (InnerProduct)",)),
        (
            "googlenet",
            "fcn32s-googlenet",
            (
                "loss1/conv (Convolution)",
                "loss1/fc (InnerProduct)",
                "loss1/classifier (InnerProduct)",
                "loss2/conv (Convolution)",
                "loss2/fc (InnerProduct)",
                "loss2/classifier (InnerProduct)",
                "loss3/classifier (InnerProduct)",
            ),
        ),
    ],
)
def test_what_is_left_of_a_classifier(file: str, net: str, unused: tuple[str, ...], tmp_path: Path) -> None:
    target = empty(net)
    donor = read(tmp_path, layers_of(file), target)
    assert donor.unused == unused
    assert set(donor.weights) == {key for key in target.state_dict() if key.startswith("trunks.")}
    assert (donor.kind, donor.trunk, donor.trunks) == ("Caffe model", target.options.trunk, ["image"])
    assert (donor.inputs, donor.labels, donor.scales) == (dict(target.options.inputs), {}, {})
    assert [each.how for each in donor.checked] == (["pool1 comes before norm1"] if file == "caffenet" else [])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("file", "net", "side"), [("vgg16", "fcn32s-vgg16", 7), ("caffenet", "fcn32s-alexnet", 6)])
def test_fully_connected_layers_are_flat_in_the_order_c_h_w(
    file: str, net: str, side: int, legacy: bool, tmp_path: Path
) -> None:
    layers = layers_of(file)
    donor = read(tmp_path, layers, net, legacy_shapes=legacy)
    (weight, _), given = blobs_of(layers, "fc6"), donor.weights["trunks.image.fc6.weight"]
    channels = weight.shape[1] // side**2
    assert given.tensor.shape == (256, channels, side, side)
    assert given.shape == ((1, 1) if legacy else ()) + (256, channels * side**2)
    cells = noise(channels, side, side)
    flat = np.array([cells[c, y, x] for c in range(channels) for y in range(side) for x in range(side)])
    got = F.conv2d(torch.from_numpy(cells)[None], given.tensor).flatten().numpy()
    np.testing.assert_allclose(got, weight @ flat, rtol=0, atol=1e-4)
    bias = donor.weights["trunks.image.fc7.bias"]
    assert (bias.tensor.shape, bias.name) == ((256,), "fc7")
    assert bias.shape == ((1, 1, 1, 256) if legacy else (256,))
    assert np.array_equal(bias.tensor.numpy(), blobs_of(layers, "fc7")[1])


class TestConvolutions:
    """Caffe matches by name and is fatal where blobs differ; so are we."""

    @pytest.mark.parametrize("count", [1, 3])
    def test_of_other_blobs(self, count: int, tmp_path: Path) -> None:
        weight, bias = blobs_of(layers_of("voc-fcn32s"), "conv3_2")
        layers = layers_of("voc-fcn32s", conv3_2=[weight, bias, bias][:count])
        assert refusal(tmp_path, layers, "voc-fcn32s") == (
            f"conv3_2 has {count} blobs; expected 2: choose the net that the file was made for"
        )

    @pytest.mark.parametrize(
        ("layer", "shapes", "expected"),
        [
            ("fc6", [(256, 32, 6, 6), (256,)], "fc6 weight is 256x32x6x6; the net has 256x32x7x7"),
            ("fc6", [(256, 1152), (256,)], "fc6 weight is 256x1152; the net has 256x32x7x7"),
            ("fc6", [(32, 256, 7, 7), (256,)], "fc6 weight is 32x256x7x7; the net has 256x32x7x7"),
            ("fc7", [(256, 256, 1, 1), (255,)], "fc7 bias is 255; the net has 256"),
            ("conv1_1", [(4, 4, 3, 3), (4,)], "conv1_1 weight is 4x4x3x3; the net has 4x3x3x3"),
            ("conv1_1", [(0, 3, 3, 3), (4,)], "conv1_1 weight is 0x3x3x3; the net has 4x3x3x3"),
            ("conv1_1", [(4, 3, 3, 3), ()], "conv1_1 bias is a single number; the net has 4"),
            ("score_fr", [(21, 255, 1, 1), (21,)], "score_fr weight is 21x255x1x1; the net has 21x256x1x1"),
            ("score_fr", [(0, 256, 1, 1), (21,)], "score_fr weight is 0x256x1x1; the net has 21x256x1x1"),
            ("score_fr", [(60, 256, 1, 1), (21,)], "score_fr bias is 21; the net has 60"),
        ],
        ids=str,
    )
    def test_of_another_shape(self, layer: str, shapes: list[tuple[int, ...]], expected: str, tmp_path: Path) -> None:
        layers = layers_of("voc-fcn32s", **{layer: [np.ones(shape, np.float32) for shape in shapes]})
        message = refusal(tmp_path, layers, "voc-fcn32s")
        assert message == f"{expected}: choose the net that the file was made for"

    @pytest.mark.parametrize("classes", [1, 2, 60])
    def test_scores_of_other_classes_are_kept(self, classes: int, tmp_path: Path) -> None:
        upscore = bilinear((classes, classes, 64, 64))
        scores = [noise(classes, 256, 1, 1), noise(classes)]
        for legacy in (False, True):
            layers = layers_of("voc-fcn32s", score_fr=scores, upscore=[upscore])
            donor = read(tmp_path, layers, "voc-fcn32s", legacy_shapes=legacy)
            for kind, blob in zip(("weight", "bias"), scores, strict=True):
                tensor = donor.weights[f"heads.semantic.score.image.32.{kind}"].tensor
                assert tensor.shape == blob.shape
                assert np.array_equal(tensor.numpy(), blob)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        ("layer", "number"), [("conv2_1", 0), ("conv2_1", 1), ("score_fr", 0), ("upscore2", 0), ("scale_pool4", 0)]
    )
    def test_that_are_not_finite(self, layer: str, number: int, value: float, tmp_path: Path) -> None:
        blobs = [blob.copy() for blob in blobs_of(layers_of("voc-fcn8s-atonce"), layer)]
        blobs[number].flat[-1] = value
        layers = layers_of("voc-fcn8s-atonce", **{layer: blobs})
        expected = f"{layer} holds values that are not finite; copy it again"
        assert refusal(tmp_path, layers, "voc-fcn8s-atonce") == expected

    def test_finite_values_of_an_infinite_sum(self, tmp_path: Path) -> None:
        weight, bias = blobs_of(layers_of("voc-fcn32s"), "fc7")
        layers = layers_of("voc-fcn32s", fc7=[np.full_like(weight, 3e38), bias])
        assert read(tmp_path, layers, "voc-fcn32s").weights["trunks.image.fc7.weight"].tensor.min() > 2.9e38


class TestAlexNets:
    """CaffeNet and BVLC AlexNet: names and shapes are the same, the order of pooling and normalisation is not."""

    @pytest.mark.parametrize(
        ("file", "net", "order", "found", "wanted"),
        [
            ("caffenet", "fcn32s-alexnet-bvlc", "pool1 before norm1", "alexnet", "alexnet-bvlc"),
            ("alexnet-bvlc", "voc-fcn-alexnet", "norm1 before pool1", "alexnet-bvlc", "alexnet"),
        ],
    )
    def test_the_other_one_is_refused(
        self, file: str, net: str, order: str, found: str, wanted: str, tmp_path: Path
    ) -> None:
        assert refusal(tmp_path, layers_of(file), net) == (
            f"has {order}, which is the trunk '{found}', not '{wanted}'; choose a net such as fcn32s-{found}"
        )

    @pytest.mark.parametrize(("file", "net"), [("caffenet", "fcn32s-alexnet"), ("alexnet-bvlc", "fcn32s-alexnet-bvlc")])
    def test_the_right_one_is_read(self, file: str, net: str, tmp_path: Path) -> None:
        assert len(read(tmp_path, layers_of(file), net).weights) == 2 * 7

    @pytest.mark.parametrize("net", ["fcn32s-alexnet", "fcn32s-alexnet-bvlc"])
    @pytest.mark.parametrize("kept", [(), ("pool1",), ("norm1",)])
    def test_an_order_that_is_not_recorded_passes(self, kept: tuple[str, ...], net: str, tmp_path: Path) -> None:
        layers = [layer for layer in layers_of("caffenet") if layer[2] or layer[0] in kept]
        assert len(read(tmp_path, layers, net).weights) == 2 * 7


class TestOtherNets:
    def test_no_name_of_ours(self, tmp_path: Path) -> None:
        assert refusal(tmp_path, layers_of("googlenet"), "voc-fcn8s") == (
            "none of its layers is one of vgg16 (it has conv1/7x7_s2, conv2/3x3_reduce, conv2/3x3, inception_3a/1x1, "
            "inception_3a/3x3_reduce, ...); choose the net that it was made for"
        )

    def test_scores_alone_are_no_trunk(self, tmp_path: Path) -> None:
        layers = [layer for layer in layers_of("voc-fcn32s") if layer[0] in ("score_fr", "upscore")]
        assert refusal(tmp_path, layers, "voc-fcn32s") == (
            "none of its layers is one of vgg16 (it has score_fr, upscore, ...); choose the net that it was made for"
        )

    def test_names_of_any_kind_are_shown_in_one_line(self, tmp_path: Path) -> None:
        odd: Layers = [("a\nb\x1b[31m" + "x" * 500, "Convolution\n", [noise(2)])]
        message = refusal(tmp_path, odd, "voc-fcn32s")
        assert r"(it has a\nb\x1b[31m" in message
        assert len(message) < 200
        donor = read(tmp_path, [*layers_of("voc-fcn32s"), *odd], "voc-fcn32s")
        assert len(donor.unused) == 1
        assert donor.unused[0].isprintable()

    def test_trunks_without_caffe_models(self, tmp_path: Path) -> None:
        path = tmp_path / "f.caffemodel"
        write_caffemodel(path, layers_of("vgg16"))
        with pytest.raises(OptionError, match="Caffe models are known for the trunks .* not for 'resnet18'"):
            read_donor(path, empty("fcn8s-resnet18"))


class TestSeveralInputs:
    """A file of one input, such as a classifier, serves nets of several."""

    def test_early_fusion_has_the_mean_of_the_colour_filters(self, tmp_path: Path) -> None:
        layers, net = layers_of("vgg16"), empty("nyud-fcn32s-color-d")
        donor = read(tmp_path, layers, net)
        assert donor.trunks == ["image"]
        done = {entry.key: entry for entry in transplant(net, [donor]).entries}
        assert done["trunks.fused.conv1_1.weight"].how == "color copied, depth the mean of 3 filters"
        weight = blobs_of(layers, "conv1_1")[0]
        ours = net.get_parameter("trunks.fused.conv1_1.weight").detach().numpy()
        assert np.array_equal(ours[:, :3], weight)
        np.testing.assert_allclose(ours[:, 3], (weight[:, 0] + weight[:, 1] + weight[:, 2]) / 3, rtol=0, atol=1e-6)
        others = [key for key in done if key.startswith("trunks.") and "conv1_1.weight" not in key]
        assert {done[key].how for key in others} == {"copied", "reshaped"}

    def test_late_fusion_has_it_in_both_trunks(self, tmp_path: Path) -> None:
        layers, net = layers_of("vgg16"), empty("nyud-fcn32s-color-hha")
        transplant(net, [read(tmp_path, layers, net)])
        for layer, kind, blobs in layers:
            if kind in ("Convolution", "InnerProduct") and layer != "fc8":
                for trunk in ("color", "hha"):
                    ours = net.get_parameter(f"trunks.{trunk}.{layer}.weight").detach().numpy()
                    assert np.array_equal(ours.reshape(blobs[0].shape), blobs[0]), (trunk, layer)

    def test_inputs_without_colour(self, tmp_path: Path) -> None:
        layers, net = layers_of("vgg16"), empty("fcn32s-vgg16", channels={"day": 1, "night": 1})
        transplant(net, [read(tmp_path, layers, net)])
        mean = blobs_of(layers, "conv1_1")[0].mean(1)
        for channel in range(2):
            ours = net.get_parameter("trunks.fused.conv1_1.weight")[:, channel].detach().numpy()
            np.testing.assert_allclose(ours, mean, rtol=0, atol=1e-6)

    def test_a_file_of_the_net_itself(self, tmp_path: Path) -> None:
        late = read(tmp_path, layers_of("nyud-fcn32s-color-hha"), "nyud-fcn32s-color-hha")
        assert late.trunks == ["color", "hha"]
        early = read(tmp_path, layers_of("nyud-fcn32s-color-d"), "nyud-fcn32s-color-d")
        assert early.trunks == ["fused"]
        assert early.weights["trunks.fused.conv1_1.weight"].name == "conv1_1_bgrd"
        assert early.weights["trunks.fused.conv1_1.weight"].tensor.shape == (4, 4, 3, 3)
        for donor in (late, early):
            assert donor.unused == ()


@pytest.mark.parametrize("suffix", [".pth", ".PT"])
def test_torchvision_files(suffix: str, tmp_path: Path) -> None:
    source = random_net("vgg16", WIDTH, 10)
    state = source.state_dict()
    path = tmp_path / f"f{suffix}"
    torch.save(state, path)
    target = empty("fcn16s-vgg16")
    donor = read_donor(path, target)
    assert (donor.kind, donor.trunk, donor.trunks) == ("torchvision classifier", "vgg16", ["image"])
    assert set(donor.weights) == {key for key in target.state_dict() if key.startswith("trunks.")}
    fc6 = donor.weights["trunks.image.fc6.weight"]
    assert (fc6.name, fc6.shape) == ("classifier.0.weight", (256, 32 * 7 * 7))
    assert torch.equal(fc6.tensor, state["classifier.0.weight"].reshape(256, 32, 7, 7))
    first = donor.weights["trunks.image.conv1_1.weight"]
    assert (first.name, first.shape) == ("features.0.weight", (4, 3, 3, 3))
    assert torch.equal(first.tensor, state["features.0.weight"])
    # 255 (0.485, 0.456, 0.406), 255 (0.229, 0.224, 0.225): reference 2.6, and RGB as the file's net reads it.
    expected = InputOptions((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert donor.inputs == {"image": expected}
    assert donor.unused == ("classifier.6.weight", "classifier.6.bias")


def test_model_files(tmp_path: Path) -> None:
    net = build("voc-fcn8s-atonce", 3, width=WIDTH)
    labels = {"semantic": LabelSet(("ground", "road", "sky"))}
    path = tmp_path / "m.SafeTensors"
    write_model(path, ModelFile(net, labels))
    donor = read_donor(path, empty("voc-fcn8s"))
    assert (donor.kind, donor.trunk, donor.trunks) == ("fullconv model", "vgg16", ["image"])
    assert (donor.labels, donor.inputs, donor.scales) == (labels, dict(net.options.inputs), {16: 0.01, 8: 0.0001})
    assert donor.unused == ()
    state: Mapping[str, torch.Tensor] = net.state_dict()
    assert list(donor.weights) == list(state)
    for key, given in donor.weights.items():
        assert (given.name, given.shape) == (key, tuple(state[key].shape))
        assert torch.equal(given.tensor, state[key])


@pytest.mark.parametrize("name", ["weights.onnx", "weights", "a\nb.bin"])
def test_kinds_are_known_by_their_suffix(name: str, tmp_path: Path) -> None:
    shown = f"{tmp_path}/{name}".replace("\n", "\\n")
    with pytest.raises(ModelFileError) as missing:
        read_donor(tmp_path / name, empty("fcn32s-vgg16"))
    assert str(missing.value) == f"{shown} does not exist; expected a file of weights"
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(OptionError) as caught:
        read_donor(tmp_path / name, empty("fcn32s-vgg16"))
    assert str(caught.value) == (
        f"{shown}: weights are read from .safetensors, .caffemodel, .pth, .pt files; rename it to what it is"
    )


def test_hdf5_is_sent_to_who_knows_it(tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelFileError, match="HDF5"):
        read_donor(tmp_path / "net.caffemodel.h5", empty("fcn32s-vgg16"))


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ("conv4_1", "Deconvolution", "conv4_1 is a layer of type Deconvolution; expected Convolution or InnerProduct"),
        ("upscore", "Convolution", "upscore is a layer of type Convolution; expected Deconvolution"),
    ],
)
def test_layers_that_compute_something_else(layer: str, kind: str, message: str, tmp_path: Path) -> None:
    layers = [(name, kind if name == layer else own, blobs) for name, own, blobs in layers_of("voc-fcn32s")]
    with pytest.raises(ModelFileError, match=message):
        read(tmp_path, layers, empty("voc-fcn32s"))


def test_a_transposed_fully_connected_layer(tmp_path: Path) -> None:
    """Its square weight would pass for the other way round: LayerParameter 117, InnerProductParameter 6."""
    layers = layers_of("vgg16")
    own = encode([layer for layer in layers if layer[0] != "fc7"])
    fc7 = message(1, b"fc7") + message(2, b"InnerProduct") + message(117, number(6, 1))
    for blob in blobs_of(layers, "fc7"):
        shape = message(1, b"".join(map(varint, blob.shape)))
        fc7 += message(7, message(7, shape) + message(5, blob.tobytes()))
    path = tmp_path / "f.caffemodel"
    path.write_bytes(own + message(100, fc7))
    with pytest.raises(ModelFileError, match="fc7 holds its weight transposed; save it with transpose: false"):
        read_donor(path, empty("fcn32s-vgg16"))


def test_capital_suffixes_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "NET.CAFFEMODEL"
    write_caffemodel(path, layers_of("vgg16"))
    assert read_donor(path, empty("fcn32s-vgg16")).kind == "Caffe model"
    for name in ("none.caffemodel", "none.pth", "none.safetensors"):
        with pytest.raises(ModelFileError, match=f"{name} does not exist"):
            read_donor(tmp_path / name, empty("fcn32s-vgg16"))
