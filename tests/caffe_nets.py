"""Every Caffe net of the reference, as a prototxt and random weights, and OpenCV's Caffe importer to run them.

The oracle of the importer and of the nets: nothing of fullconv is used and every pad, crop, kernel and coefficient is
the literal number of the tables of reference 1, 2 and 3, so that the two can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from caffe_writer import write_caffemodel

INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Filters of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5 and pool_proj (reference 2.4)."""


@dataclass(frozen=True)
class CaffeNet:
    """A net in deploy form (no data, label or loss layers) and its weights."""

    prototxt: str
    layers: list[tuple[str, str, list[np.ndarray]]]
    """Name, type and float32 blobs in execution order, of layers without blobs too."""
    inputs: dict[str, tuple[int, int, int]]
    """(C, H, W) of every input blob."""
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A layer of a graph: of its blobs the shapes and the standard deviations; of a Scale, the value itself."""

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...] = ()
    deviations: tuple[float, ...] = ()


@dataclass(frozen=True)
class Blob:
    """What a layer gives: channels, and the magnitude of the values that it is meant to have."""

    channels: int
    magnitude: float


@dataclass
class Graph:
    """A net being written: `width` scales all channels but the classes, `level` is the magnitude of hidden values."""

    size: tuple[int, int]
    width: float
    level: float
    lines: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    inputs: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)

    def scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))

    def add(
        self,
        layer: Layer,
        bottoms: Sequence[str],
        blob: Blob | None = None,
        parameters: str = "",
        in_place: bool = False,
    ) -> str:
        """Append a layer, that of a blob like its first bottom if none is given, and return the blob's name."""
        top = bottoms[0] if in_place else layer.name
        self.blobs[top] = blob or self.blobs[bottoms[0]]
        self.layers.append(layer)
        ends = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        self.lines.append(f'layer {{ name: "{layer.name}" type: "{layer.kind}"{ends} top: "{top}" {parameters} }}')
        return top

    def data(self, **channels: int) -> None:
        """The inputs: one Input layer of several tops."""
        self.inputs = {name: (count, *self.size) for name, count in channels.items()}
        self.blobs |= {name: Blob(count, 80) for name, count in channels.items()}
        self.layers.append(Layer("input", "Input"))
        tops = " ".join(f'top: "{name}"' for name in channels)
        height, width = self.size
        shapes = " ".join(f"shape {{ dim: 1 dim: {n} dim: {height} dim: {width} }}" for n in channels.values())
        self.lines.append(f'layer {{ name: "input" type: "Input" {tops} input_param {{ {shapes} }} }}')

    def weighted(
        self, name: str, kind: str, bottom: str, shape: tuple[int, ...], magnitude: float, parameters: str
    ) -> str:
        """A layer of weights (O, ...) and a bias."""
        deviation = (3 / np.prod(shape[1:])) ** 0.5 * magnitude / self.blobs[bottom].magnitude
        layer = Layer(name, kind, (shape, shape[:1]), (deviation, 0.1 * magnitude))
        return self.add(layer, [bottom], Blob(shape[0], magnitude), parameters)

    def convolution(
        self,
        name: str,
        bottom: str,
        out: int,
        kernel: int,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        magnitude: float = 1,
    ) -> str:
        """`out` is not scaled here."""
        channels = self.blobs[bottom].channels
        assert channels % group == out % group == 0, f"{name}: {channels} to {out} channels in {group} groups"
        parameters = f"num_output: {out} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        shape = (out, channels // group, kernel, kernel)
        return self.weighted(name, "Convolution", bottom, shape, magnitude, f"convolution_param {{ {parameters} }}")

    def conv_relu(
        self, name: str, relu: str, bottom: str, out: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1
    ) -> str:
        return self.relu(relu, self.convolution(name, bottom, self.scaled(out), kernel, stride, pad, group, self.level))

    def score(self, name: str, bottom: str, classes: int) -> str:
        return self.convolution(name, bottom, classes, 1)

    def inner(self, name: str, bottom: str, cells: int, out: int, magnitude: float = 1) -> str:
        """InnerProduct of a blob of `cells` positions; `out` is not scaled here."""
        shape = (out, self.blobs[bottom].channels * cells)
        parameters = f"inner_product_param {{ num_output: {out} }}"
        return self.weighted(name, "InnerProduct", bottom, shape, magnitude, parameters)

    def relu(self, name: str, bottom: str) -> str:
        return self.add(Layer(name, "ReLU"), [bottom], in_place=True)

    def dropout(self, name: str, bottom: str, ratio: float = 0.5) -> str:
        parameters = f"dropout_param {{ dropout_ratio: {ratio} }}"
        return self.add(Layer(name, "Dropout"), [bottom], parameters=parameters, in_place=True)

    def pool(self, name: str, bottom: str, kernel: int, stride: int, pad: int = 0, kind: str = "MAX") -> str:
        parameters = f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        return self.add(Layer(name, "Pooling"), [bottom], parameters=parameters)

    def norm(self, name: str, bottom: str) -> str:
        parameters = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
        return self.add(Layer(name, "LRN"), [bottom], parameters=parameters)

    def upscore(self, name: str, bottom: str, kernel: int, stride: int) -> str:
        classes = self.blobs[bottom].channels
        parameters = f"num_output: {classes} bias_term: false kernel_size: {kernel} stride: {stride}"
        layer = Layer(name, "Deconvolution", ((classes, classes, kernel, kernel),))
        return self.add(layer, [bottom], parameters=f"convolution_param {{ {parameters} }}")

    def crop(self, name: str, bottom: str, reference: str, offset: int) -> str:
        parameters = f"crop_param {{ axis: 2 offset: {offset} }}"
        return self.add(Layer(name, "Crop"), [bottom, reference], parameters=parameters)

    def sum(self, name: str, bottoms: Sequence[str], coefficients: str = "") -> str:
        parameters = f"eltwise_param {{ operation: SUM {coefficients} }}"
        return self.add(Layer(name, "Eltwise"), bottoms, parameters=parameters)

    def concat(self, name: str, bottoms: Sequence[str]) -> str:
        blobs = [self.blobs[bottom] for bottom in bottoms]
        return self.add(Layer(name, "Concat"), bottoms, Blob(sum(blob.channels for blob in blobs), blobs[0].magnitude))

    def scale(self, name: str, bottom: str, value: float) -> str:
        blob = self.blobs[bottom]
        layer = Layer(name, "Scale", ((blob.channels,),), (value,))
        parameters = f'scale_param {{ filler {{ type: "constant" value: {value} }} }}'
        return self.add(layer, [bottom], Blob(blob.channels, blob.magnitude * value), parameters)


def vgg_pools(graph: Graph, data: str, pad: int, suffix: str = "", first: str = "conv1_1") -> list[str]:
    """VGG-16 up to pool5 (reference 1.1); pool1 to pool5."""
    pools = []
    blob = data
    for stage, (out, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for index in range(1, depth + 1):
            name, relu = f"conv{stage}_{index}{suffix}", f"relu{stage}_{index}{suffix}"
            if blob == data:
                blob = graph.conv_relu(first + suffix, relu, data, out, 3, pad=pad)
            else:
                blob = graph.conv_relu(name, relu, blob, out, 3, pad=1)
        blob = graph.pool(f"pool{stage}{suffix}", blob, 2, 2)
        pools.append(blob)
    return pools


def fc_convolutions(graph: Graph, pool5: str, kernel: int, suffix: str = "") -> str:
    """fc6 and fc7 as convolutions, with their dropout."""
    fc6 = graph.conv_relu(f"fc6{suffix}", f"relu6{suffix}", pool5, 4096, kernel)
    fc6 = graph.dropout(f"drop6{suffix}", fc6)
    fc7 = graph.conv_relu(f"fc7{suffix}", f"relu7{suffix}", fc6, 4096, 1)
    return graph.dropout(f"drop7{suffix}", fc7)


def skip_head(graph: Graph, stride: int, classes: int, pools: list[str], fc7: str, suffix: str, at_once: bool) -> str:
    """The 32s, 16s and 8s heads (reference 1.2)."""
    pool3, pool4 = pools[2:4]
    score_fr = graph.score(f"score_fr{suffix}", fc7, classes)
    if stride == 32:
        upscore = graph.upscore(f"upscore{suffix}", score_fr, 64, 32)
        return graph.crop(f"score{suffix}", upscore, "data", 19)
    upscore2 = graph.upscore(f"upscore2{suffix}", score_fr, 4, 2)
    pool4 = graph.scale(f"scale_pool4{suffix}", pool4, 0.01) if at_once else pool4
    score_pool4 = graph.score(f"score_pool4{suffix}", pool4, classes)
    score_pool4c = graph.crop(f"score_pool4{suffix}c", score_pool4, upscore2, 5)
    fuse_pool4 = graph.sum(f"fuse_pool4{suffix}", [upscore2, score_pool4c])
    if stride == 16:
        upscore16 = graph.upscore(f"upscore16{suffix}", fuse_pool4, 32, 16)
        return graph.crop(f"score{suffix}", upscore16, "data", 27)
    upscore_pool4 = graph.upscore(f"upscore_pool4{suffix}", fuse_pool4, 4, 2)
    pool3 = graph.scale(f"scale_pool3{suffix}", pool3, 0.0001) if at_once else pool3
    score_pool3 = graph.score(f"score_pool3{suffix}", pool3, classes)
    score_pool3c = graph.crop(f"score_pool3{suffix}c", score_pool3, upscore_pool4, 9)
    fuse_pool3 = graph.sum(f"fuse_pool3{suffix}", [upscore_pool4, score_pool3c])
    upscore8 = graph.upscore(f"upscore8{suffix}", fuse_pool3, 16, 8)
    return graph.crop(f"score{suffix}", upscore8, "data", 31)


def fcn_vgg(graph: Graph, stride: int, heads: Mapping[str, int], at_once: bool = False) -> list[str]:
    """One trunk and a head for each suffix."""
    graph.data(data=3)
    pools = vgg_pools(graph, "data", 100)
    fc7 = fc_convolutions(graph, pools[-1], 7)
    return [skip_head(graph, stride, classes, pools, fc7, suffix, at_once) for suffix, classes in heads.items()]


def fcn_early_fusion(graph: Graph) -> list[str]:
    """nyud-fcn32s-color-d."""
    graph.data(color=3, depth=1)
    data = graph.concat("data", ["color", "depth"])
    pools = vgg_pools(graph, data, 100, first="conv1_1_bgrd")
    return [skip_head(graph, 32, 40, pools, fc_convolutions(graph, pools[-1], 7), "", False)]


def fcn_late_fusion(graph: Graph) -> list[str]:
    """nyud-fcn32s-color-hha."""
    graph.data(color=3, hha=3)
    scores = []
    for branch in ("color", "hha"):
        pools = vgg_pools(graph, branch, 100, suffix=branch)
        scores.append(graph.score(f"score_fr{branch}", fc_convolutions(graph, pools[-1], 7, branch), 40))
    fused = graph.sum("score_fused", scores, coefficients="coeff: 0.5 coeff: 0.5")
    return [graph.crop("score", graph.upscore("upscore", fused, 64, 32), "color", 19)]


def alexnet_pools(graph: Graph, pad: int, norm_first: bool = False) -> str:
    """CaffeNet, or BVLC AlexNet if `norm_first`, up to pool5 (reference 1.2 and 2.1)."""
    blob = graph.conv_relu("conv1", "relu1", "data", 96, 11, stride=4, pad=pad)
    for stage in (1, 2):
        if stage == 2:
            blob = graph.conv_relu("conv2", "relu2", blob, 256, 5, pad=2, group=2)
        if norm_first:
            blob = graph.pool(f"pool{stage}", graph.norm(f"norm{stage}", blob), 3, 2)
        else:
            blob = graph.norm(f"norm{stage}", graph.pool(f"pool{stage}", blob, 3, 2))
    blob = graph.conv_relu("conv3", "relu3", blob, 384, 3, pad=1)
    blob = graph.conv_relu("conv4", "relu4", blob, 384, 3, pad=1, group=2)
    blob = graph.conv_relu("conv5", "relu5", blob, 256, 3, pad=1, group=2)
    return graph.pool("pool5", blob, 3, 2)


def fcn_alexnet(graph: Graph) -> list[str]:
    graph.data(data=3)
    score_fr = graph.score("score_fr", fc_convolutions(graph, alexnet_pools(graph, 100), 6), 21)
    return [graph.crop("score", graph.upscore("upscore", score_fr, 63, 32), "data", 18)]


def googlenet_trunk(graph: Graph, pad: int, auxiliary: bool) -> str:
    """BVLC GoogLeNet up to inception_5b/output (reference 2.4)."""
    blob = graph.conv_relu("conv1/7x7_s2", "conv1/relu_7x7", "data", 64, 7, stride=2, pad=pad)
    blob = graph.norm("pool1/norm1", graph.pool("pool1/3x3_s2", blob, 3, 2))
    blob = graph.conv_relu("conv2/3x3_reduce", "conv2/relu_3x3_reduce", blob, 64, 1)
    blob = graph.conv_relu("conv2/3x3", "conv2/relu_3x3", blob, 192, 3, pad=1)
    blob = graph.pool("pool2/3x3_s2", graph.norm("conv2/norm2", blob), 3, 2)
    for module, (one, reduce3, three, reduce5, five, projection) in INCEPTION.items():
        if module in {"4a", "5a"}:
            blob = graph.pool(f"pool{int(module[0]) - 1}/3x3_s2", blob, 3, 2)

        def conv(name: str, bottom: str, out: int, kernel: int, pad: int = 0, module: str = module) -> str:
            return graph.conv_relu(
                f"inception_{module}/{name}", f"inception_{module}/relu_{name}", bottom, out, kernel, pad=pad
            )

        branch1 = conv("1x1", blob, one, 1)
        branch3 = conv("3x3", conv("3x3_reduce", blob, reduce3, 1), three, 3, 1)
        branch5 = conv("5x5", conv("5x5_reduce", blob, reduce5, 1), five, 5, 2)
        branch4 = conv("pool_proj", graph.pool(f"inception_{module}/pool", blob, 3, 1, 1), projection, 1)
        blob = graph.concat(f"inception_{module}/output", [branch1, branch3, branch5, branch4])
        if auxiliary and module in {"4a", "4d"}:
            auxiliary_head(graph, "loss1" if module == "4a" else "loss2", blob)
    return blob


def auxiliary_head(graph: Graph, name: str, bottom: str) -> None:
    """A head of the training net: the weight file holds it, the deploy form does not."""
    deployed = len(graph.lines)
    blob = graph.pool(f"{name}/ave_pool", bottom, 5, 3, kind="AVE")
    blob = graph.conv_relu(f"{name}/conv", f"{name}/relu_conv", blob, 128, 1)
    blob = graph.relu(f"{name}/relu_fc", graph.inner(f"{name}/fc", blob, 4 * 4, graph.scaled(1024), graph.level))
    graph.inner(f"{name}/classifier", graph.dropout(f"{name}/drop_fc", blob, 0.7), 1, 1000)
    del graph.lines[deployed:]


def fcn_googlenet(graph: Graph) -> list[str]:
    """Reference 2.5, conv1 with pad 100."""
    graph.data(data=3)
    blob = graph.dropout("pool5/drop_7x7_s1", googlenet_trunk(graph, 100, auxiliary=False), 0.4)
    upscore = graph.upscore("upscore", graph.score("score_fr", blob, 21), 63, 32)
    return [graph.crop("score", upscore, "data", 98)]


def fully_connected(graph: Graph, pool5: str, cells: int) -> list[str]:
    """fc6, fc7 and fc8 of a classifier."""
    blob = pool5
    for layer, inputs in ((6, cells), (7, 1)):
        blob = graph.relu(f"relu{layer}", graph.inner(f"fc{layer}", blob, inputs, graph.scaled(4096), graph.level))
        blob = graph.dropout(f"drop{layer}", blob)
    return [graph.inner("fc8", blob, 1, 1000)]


def alexnet(graph: Graph, norm_first: bool) -> list[str]:
    """For 227 x 227."""
    graph.data(data=3)
    return fully_connected(graph, alexnet_pools(graph, 0, norm_first), 6 * 6)


def vgg16(graph: Graph) -> list[str]:
    """For 224 x 224."""
    graph.data(data=3)
    return fully_connected(graph, vgg_pools(graph, "data", 1)[-1], 7 * 7)


def googlenet(graph: Graph) -> list[str]:
    """For 224 x 224."""
    graph.data(data=3)
    blob = graph.pool("pool5/7x7_s1", googlenet_trunk(graph, 3, auxiliary=True), 7, 1, kind="AVE")
    blob = graph.dropout("pool5/drop_7x7_s1", blob, 0.4)
    return [graph.inner("loss3/classifier", blob, 1, 1000)]


SIFT_FLOW = {"_sem": 33, "_geo": 3}
NETS: dict[str, Callable[[Graph], list[str]]] = {
    "voc-fcn32s": partial(fcn_vgg, stride=32, heads={"": 21}),
    "voc-fcn16s": partial(fcn_vgg, stride=16, heads={"": 21}),
    "voc-fcn8s": partial(fcn_vgg, stride=8, heads={"": 21}),
    "voc-fcn8s-atonce": partial(fcn_vgg, stride=8, heads={"": 21}, at_once=True),
    "voc-fcn-alexnet": fcn_alexnet,
    "voc-fcn-googlenet": fcn_googlenet,
    "pascalcontext-fcn32s": partial(fcn_vgg, stride=32, heads={"": 60}),
    "pascalcontext-fcn16s": partial(fcn_vgg, stride=16, heads={"": 60}),
    "pascalcontext-fcn8s": partial(fcn_vgg, stride=8, heads={"": 60}),
    "nyud-fcn32s-color": partial(fcn_vgg, stride=32, heads={"": 40}),
    "nyud-fcn32s-hha": partial(fcn_vgg, stride=32, heads={"": 40}),
    "nyud-fcn32s-color-d": fcn_early_fusion,
    "nyud-fcn32s-color-hha": fcn_late_fusion,
    "siftflow-fcn32s": partial(fcn_vgg, stride=32, heads=SIFT_FLOW),
    "siftflow-fcn16s": partial(fcn_vgg, stride=16, heads=SIFT_FLOW),
    "siftflow-fcn8s": partial(fcn_vgg, stride=8, heads=SIFT_FLOW),
    "caffenet": partial(alexnet, norm_first=False),
    "alexnet-bvlc": partial(alexnet, norm_first=True),
    "vgg16": vgg16,
    "googlenet": googlenet,
}
NAMES = tuple(NETS)
CLASSIFIERS = {"caffenet": 227, "alexnet-bvlc": 227, "vgg16": 224, "googlenet": 224}
"""And the input size that their InnerProduct layers take."""


def _graph(name: str, size: tuple[int, int], width: float) -> tuple[Graph, tuple[str, ...]]:
    normalises = "alexnet" in name or "caffenet" in name or "googlenet" in name
    graph = Graph(size, width, 80 if normalises else 1)  # LRN only matters among activations of some magnitude
    return graph, tuple(NETS[name](graph))


def layer_shapes(name: str, width: float = 1.0) -> list[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    """Name, type and blob shapes of a net's layers, without drawing the numbers."""
    graph, _ = _graph(name, (224, 224), width)
    return [(layer.name, layer.kind, layer.shapes) for layer in graph.layers]


def bilinear(shape: tuple[int, ...]) -> np.ndarray:
    """Dense (C, C, k, k), bilinear on the channel diagonal (reference 4.3)."""
    kernel = shape[-1]
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 else factor - 0.5
    taps = 1 - abs(np.arange(kernel) - center) / factor
    weight = np.zeros(shape, np.float32)
    for channel in range(shape[0]):
        weight[channel, channel] = np.outer(taps, taps)
    return weight


def _blobs(layer: Layer, rng: np.random.Generator) -> list[np.ndarray]:
    if layer.kind == "Deconvolution":
        return [bilinear(layer.shapes[0])]
    if layer.kind == "Scale":
        return [np.full(layer.shapes[0], layer.deviations[0], np.float32)]
    blobs = []
    for shape, deviation in zip(layer.shapes, layer.deviations, strict=True):
        blob = rng.standard_normal(shape, np.float32)
        if len(shape) > 1 and blob[0].size > 1:
            # Filters of mean zero: else what ReLU and maxima add up to drowns the image, and every pixel scores alike.
            blob -= blob.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        blobs.append(blob * np.float32(deviation))
    return blobs


def caffe_net(name: str, size: tuple[int, int], *, width: float = 1.0, seed: int = 0) -> CaffeNet:
    """A net of `NAMES` with random weights, its scores of a magnitude of one for inputs of about 80.

    Args:
        name: one of `NAMES`.
        size: height and width of the inputs; that of `CLASSIFIERS` for a classifier.
        width: factor of all channel numbers but the classes.
        seed: of the weights.
    """
    graph, outputs = _graph(name, size, width)
    rng = np.random.default_rng(seed)
    layers = [(layer.name, layer.kind, _blobs(layer, rng)) for layer in graph.layers]
    return CaffeNet("\n".join([f'name: "{name}"', *graph.lines, ""]), layers, graph.inputs, outputs)


def opencv_scores(net: CaffeNet, inputs: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """OpenCV's answer for one example.

    Args:
        net: the net.
        inputs: of every input blob, (C, H, W) float32, BGR and without its mean.
        folder: where net.prototxt and net.caffemodel are written.

    Returns:
        (K, H, W) float32 of every output; (K, 1, 1) of a classifier.
    """
    prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(net.prototxt)
    write_caffemodel(model, net.layers)
    reader = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
    reader.enableWinograd(False)  # its rounding costs a digit
    for name, shape in net.inputs.items():
        assert inputs[name].shape == shape, f"{name} is of {inputs[name].shape}, not {shape}"
        reader.setInput(inputs[name][None], name)
    answers = reader.forward(list(net.outputs))
    return {
        name: answer.reshape(answer.shape[1], *(answer.shape[2:] or (1, 1)))
        for name, answer in zip(net.outputs, answers, strict=True)
    }
