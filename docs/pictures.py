"""The pictures of docs/dense.md, made by the code that they explain: python docs/pictures.py (some minutes).

Scenes are drawn: shapes of five classes on a noisy ground. A small classifier learns single shapes, small FCNs learn
scenes, all from random weights and a seed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

import fullconv
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.inference.heatmap import save_heatmaps
from fullconv.labels import LabelSet
from fullconv.nets.dense import rarefy, shift_and_stitch
from fullconv.nets.dense_classifier import DenseClassifier, convolutionalize
from fullconv.nets.options import InputOptions
from fullconv.nets.trace import trace
from fullconv.report.pictures import FONT, INK, colour

HERE = Path(__file__).parent / "pictures"
NAMES = ("ground", "disk", "square", "triangle", "ring", "cross")
LABELS = LabelSet(NAMES)
WINDOW = 32
"""Pixels of a picture that the classifier learns from."""

SCENE = (192, 288)
STEPS = {32: 700, 16: 350, 8: 350}
"""Of training at each stride; each net starts from the one before, as in the paper."""

BLUE, RED = "#0969da", "#cf222e"
Array = NDArray[np.uint8]


def shape(kind: int, radius: float) -> Image.Image:
    """A mask of the shape, turned by nothing, in a square of 2 radius + 1 pixels."""
    side = int(2 * radius) + 1
    mask = Image.new("L", (side, side))
    draw, last = ImageDraw.Draw(mask), side - 1
    if kind in (1, 4):
        draw.ellipse((0, 0, last, last), fill=255)
    if kind == 4:
        draw.ellipse((radius * 0.5, radius * 0.5, last - radius * 0.5, last - radius * 0.5), fill=0)
    if kind == 2:
        draw.rectangle((0, 0, last, last), fill=255)
    if kind == 3:
        draw.polygon(((radius, 0), (last, last), (0, last)), fill=255)
    if kind == 5:
        draw.rectangle((radius * 0.65, 0, last - radius * 0.65, last), fill=255)
        draw.rectangle((0, radius * 0.65, last, last - radius * 0.65), fill=255)
    return mask


def scene(
    seed: int, size: tuple[int, int], count: int, radii: tuple[float, float], margin: int = 0, noise: float = 9
) -> tuple[Array, Array]:
    """(H, W, 3) uint8 and its mask (H, W): shapes that do not touch, of any colour, `margin` pixels from the border."""
    random = np.random.default_rng([7, seed])
    height, width = size
    ramp = np.linspace(0, 1, width) * random.uniform(-30, 30)
    ground = np.full((height, width, 3), random.uniform(70, 150, 3)) + ramp[:, None]
    mask = np.zeros(size, np.uint8)
    taken = np.zeros(size, bool)
    for _ in range(40 * count):
        radius = random.uniform(*radii)
        kind = int(random.integers(1, len(NAMES)))
        stamp = np.asarray(shape(kind, radius)) > 0
        side = len(stamp)
        y, x = (int(random.integers(margin, n - side - margin)) for n in (height, width))
        window = slice(max(y - 3, 0), y + side + 3), slice(max(x - 3, 0), x + side + 3)
        if taken[window].any():
            continue
        taken[window] = True
        inside = slice(y, y + side), slice(x, x + side)
        tone = (ground[inside].mean((0, 1)) + random.choice([-1, 1]) * random.uniform(50, 100, 3)).clip(0, 255)
        ground[inside][stamp] = tone
        mask[inside][stamp] = kind
        count -= 1
        if not count:
            break
    noisy = ground + random.normal(0, noise, ground.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


class Scenes:
    """A data set of scenes."""

    def __init__(self, split: str, count: int) -> None:
        self.source, self.split = "scenes", split
        self.labels: Mapping[str, LabelSet] = {SEMANTIC: LABELS}
        self.channels: Mapping[str, int] = {IMAGE: 3}
        first = 0 if split == "train" else 100_000
        self.names: Sequence[str] = [f"{split}{number}" for number in range(count)]
        self.seeds = range(first, first + count)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        image, mask = scene(self.seeds[index], (128, 128), 5, (8, 24))
        return Sample(self.names[index], {IMAGE: image}, {SEMANTIC: mask})

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.split} {len(self)}".encode()).hexdigest()


def classifier() -> nn.Module:
    """A small classifier of 32 x 32 pictures in a common style: convolutions without padding, poolings, two layers."""

    def block(channels: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, out, 3), nn.BatchNorm2d(out), nn.ReLU()]

    return nn.Sequential(
        *block(3, 24), nn.MaxPool2d(2), *block(24, 48), *block(48, 48), nn.MaxPool2d(2), *block(48, 64),
        nn.Flatten(), nn.Linear(64 * 3 * 3, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, len(NAMES)),
    )  # fmt: skip


def trained_classifier(steps: int = 900) -> DenseClassifier:
    """The classifier, trained on windows of scenes, made convolutional."""
    torch.manual_seed(0)
    net = classifier()
    inputs = InputOptions((127.5,) * 3, (64.0,) * 3)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    random = np.random.default_rng(1)
    windows, classes = [], []
    for seed in range(900):
        image, mask = scene(seed, (128, 128), 5, (9, 14))
        for _ in range(12):
            y, x = random.integers(0, 128 - WINDOW, 2)
            middle = mask[y + WINDOW // 2 - 6 : y + WINDOW // 2 + 6, x + WINDOW // 2 - 6 : x + WINDOW // 2 + 6]
            shares = np.bincount(middle.ravel(), minlength=len(NAMES))
            shares[0] = 0 if shares[1:].max() > 12 else shares[0]
            windows.append(image[y : y + WINDOW, x : x + WINDOW])
            classes.append(int(shares.argmax()))
    pictures = (torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).float() - 127.5) / 64
    targets = torch.tensor(classes)
    for _ in range(steps):
        chosen = torch.from_numpy(random.integers(0, len(targets), 128))
        loss = F.cross_entropy(net(pictures[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return convolutionalize(net, WINDOW, names=NAMES, inputs=inputs)


def fields(image: Array) -> None:
    """Fields of a unit in the middle, of each stride of VGG-16, over the scene."""
    with torch.device("meta"):
        trunk = next(iter(fullconv.build("fcn8s-vgg16").eval().trunks.values()))
    geometry = trace(trunk, (1, 3, *image.shape[:2]))
    figure, axes = _panel(image, 7.4)
    colours = mpl.colormaps["cool"](np.linspace(1, 0, 5))
    for name, tone in zip(("pool1", "pool2", "pool3", "pool4", "fc6"), colours, strict=True):
        rows, columns = geometry[name].fields()
        unit = [round(float((n / 2 - f.centre) / f.stride)) for f, n in zip((rows, columns), image.shape, strict=False)]
        (top, bottom), (left, right) = rows.inputs(unit[0], unit[0] + 1), columns.inputs(unit[1], unit[1] + 1)
        box = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=tone, linewidth=2)
        axes.add_patch(box)
        text = f"{name}: {rows.size} pixels wide, a unit every {rows.stride}"
        axes.plot([], [], color=tone, linewidth=2, label=text)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, prop={"family": FONT, "size": 7})
    _save(figure, "fields")


def stitching(dense: DenseClassifier, image: Array, kind: int = 4) -> None:
    """The scores of one class from every shift, and what interlacing them gives."""
    picture = _tensor(image)
    whole = shift_and_stitch(dense, picture)[0, kind]
    with torch.no_grad():
        thinned = rarefy(dense)(picture)[0, kind]
    down, right = dense.stride
    low, high = float(whole.min()), float(whole.max())
    figure = Figure(figsize=(10.2, 2.8), layout="constrained", facecolor="white")
    left, middle, last = figure.subfigures(1, 3, width_ratios=(1, 1, 1))
    grid = left.subplots(down, right)
    for y in range(down):
        for x in range(right):
            grid[y, x].imshow(whole[-y % down :: down, -x % right :: right], vmin=low, vmax=high, cmap="inferno")
            grid[y, x].set_axis_off()
            grid[y, x].set_title(f"{y}, {x}", fontsize=7, pad=2, color=INK, family=FONT)
    _title(left, f"{down * right} coarse maps, one a shift (down, right)")
    for part, values, title in (
        (middle, whole, "interlaced: a score a pixel"),
        (last, thinned, "rarefied net, one pass"),
    ):
        axes = part.subplots()
        axes.imshow(values, vmin=low, vmax=high, cmap="inferno")
        axes.set_axis_off()
        _title(part, title)
    _save(figure, "stitching")


def rarefaction(dense: DenseClassifier) -> None:
    """One filter of each later convolution, as it was and with its dilation written out as zeros."""
    thinned = rarefy(dense)
    before = [layer for layer in dense.net.layers.values() if isinstance(layer, nn.Conv2d)]
    after = [layer for layer in thinned.net.layers.values() if isinstance(layer, nn.Conv2d)]
    shown = [(0, "conv1"), (2, "conv3, behind one pooling"), (3, "conv4, behind two")]
    figure = Figure(figsize=(8.4, 4.4), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(shown))
    reach = max(before[index].weight[0, 0].abs().max().item() for index, _ in shown)
    for column, (index, name) in enumerate(shown):
        kernel, rate = before[index].weight[0, 0].detach(), after[index].dilation[0]
        side = rate * (len(kernel) - 1) + 1
        wide = torch.zeros(side, side)
        wide[::rate, ::rate] = kernel
        for row, values in enumerate((kernel, wide)):
            axes = grid[row, column]
            axes.imshow(values, cmap="RdBu", vmin=-reach, vmax=reach)
            for i in range(len(values)):
                for j in range(len(values)):
                    if row and (i % rate or j % rate):
                        axes.text(j, i, "0", ha="center", va="center", fontsize=7, color="#57606a", family=FONT)
            axes.set_xticks(np.arange(len(values) + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(len(values) + 1) - 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=0.6)
            axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
            name_ = f"{name}: {len(kernel)} x {len(kernel)}" if not row else f"rarefied: {side} x {side}"
            axes.set_title(name_, fontsize=9, color=INK, family=FONT)
    _save(figure, "rarefaction")


def strides(image: Array, truth: Array) -> None:
    """32s, 16s and 8s of one scene; each net starts from the coarser one, as in the paper."""
    panels = [("picture", image), ("truth", colour(truth, LABELS))]
    with tempfile.TemporaryDirectory() as folder:
        start: tuple[str, ...] = ()
        for stride, steps in STEPS.items():
            done = fullconv.train(
                (Scenes("train", 3000), Scenes("val", 60)), f"fcn{stride}s-slim", out=Path(folder) / f"{stride}s",
                steps=steps, init=start, batch=16, class_weights="none", net_options={"width": 0.75},
            )  # fmt: skip
            start = (str(done.model),)
            labels = fullconv.load(done.model).predict(image).labels
            scores = done.scores
            value = f"{100 * scores.mean_iu:.0f}" if scores else "?"
            panels.append((f"FCN-{stride}s, mean IU {value}", colour(labels, LABELS)))
    height, width = image.shape[:2]
    figure = Figure(figsize=(10.2, 10.2 / 3 * height / width * 2 + 0.5), layout="constrained", facecolor="white")
    grid = figure.subplots(2, 3).ravel()
    for axes, (title, panel) in zip(grid, panels, strict=False):
        axes.imshow(panel, interpolation="nearest")
        axes.set_title(title, fontsize=9.5, color=INK, family=FONT)
    for axes in grid:
        axes.set_axis_off()
    colours = np.array(LABELS.colours) / 255
    for k, name in enumerate(NAMES):
        grid[-1].add_patch(
            Rectangle((0.1, 0.85 - 0.15 * k), 0.1, 0.1, facecolor=colours[k], transform=grid[-1].transAxes)
        )
        grid[-1].text(0.24, 0.9 - 0.15 * k, name, transform=grid[-1].transAxes, va="center", fontsize=9, family=FONT)
    _save(figure, "strides")


def heat(dense: DenseClassifier, image: Array) -> None:
    """Heat maps of four classes."""
    model = fullconv.DenseModel(dense)
    save_heatmaps(HERE / "heatmaps.png", [model.heatmap(image, name) for name in ("disk", "ring", "cross", "triangle")])
    with Image.open(HERE / "heatmaps.png") as picture:
        smaller = picture.convert("RGB").resize((800, 800 * picture.height // picture.width), Image.Resampling.LANCZOS)
    smaller.save(HERE / "heatmaps.png", optimize=True)


def _tensor(image: Array) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def _panel(image: Array, width: float) -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(
        figsize=(width, width * image.shape[0] / image.shape[1] + 0.4), layout="constrained", facecolor="white"
    )
    axes = figure.subplots()
    axes.imshow(image)
    axes.set_axis_off()
    return figure, axes


def _title(part: mpl.figure.SubFigure, text: str) -> None:
    part.suptitle(text, fontsize=9.5, color=INK, family=FONT)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110, metadata={"Software": None})
    if name != "fields":  # its thin lines would lose their colours
        _thin(HERE / f"{name}.png")


def _thin(path: Path) -> None:
    """A palette of 256 colours: a third of the bytes."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def main() -> None:
    """All of them."""
    HERE.mkdir(exist_ok=True)
    fields(scene(200_003, (450, 640), 34, (14, 40), noise=0)[0])
    dense = trained_classifier()
    heat(dense, scene(200_006, (160, 240), 11, (9, 13), margin=16)[0])
    stitching(dense, scene(200_011, (112, 144), 7, (9, 13))[0])
    rarefaction(dense)
    strides(*scene(200_003, SCENE, 14, (9, 20)))


if __name__ == "__main__":
    main()
