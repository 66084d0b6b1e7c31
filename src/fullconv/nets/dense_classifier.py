"""DenseClassifier: a classifier run convolutionally, and the check that it still computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError
from fullconv.nets.convolutionalize import Rewriter
from fullconv.nets.modules import evaluating, first_channels, first_weight
from fullconv.nets.normalise import Normalise
from fullconv.nets.options import InputOptions
from fullconv.nets.trace import trace
from fullconv.nets.wired import Wired

TOLERANCE = 1e-5
"""Between a classifier and its dense form, of the largest logit: the same sums in another order."""

WINDOWS = 3
"""Along each axis of the larger image that is checked."""


@dataclass(frozen=True)
class Conformance:
    """How far a dense classifier is from the classifier that it was made of, relative to the largest logit.

    Attributes:
        logits: at the input size.
        cells: cells of a larger image against the classifier run on their windows; None where a padded classifier's
            tail reads several maps that have no common one.
        windows: what was cut into windows: "image", or "map" where the classifier pads: there a window alone has a
            border of zeros that it does not have within the image, and only from the map on that the tail reads are
            both the same.
    """

    logits: float
    cells: float | None
    windows: str


class DenseClassifier(nn.Module):
    """A fully convolutional classifier (Long et al. 2015, section 3.1).

    Takes (N, C, H, W), H and W at least those of the input size; gives (N, K, h, w). Cell (i, j) holds the logits of
    the window of the input size that begins at pixel (i, j) times the stride.

    Args:
        net: the steps.
        input_size: (H, W) of one window.
        names: of the classes; default: their numbers.
        inputs: how an RGB image of 0..255 becomes what the classifier takes; None: the classifier takes it so.

    Attributes:
        stride: pixels from one cell to the next, (vertical, horizontal).
        channels, classes: C and K.
        conformance: how it was checked, where it was.

    Raises:
        GeometryError: steps that are not local, or that do not give whole pixels between cells.
        OptionError: names or inputs that do not fit the net.
    """

    conformance: Conformance | None = None

    def __init__(
        self,
        net: Wired,
        input_size: tuple[int, int],
        channels: int,
        names: Sequence[str] | None = None,
        inputs: InputOptions | None = None,
    ) -> None:
        super().__init__()
        self.net, self.input_size, self.channels, self.inputs = net, input_size, channels, inputs
        geometry = trace(net, (1, channels, *self.roomy))
        geometry.require_local("a dense classifier")
        self.classes = geometry.output.shape[1]
        rows, columns = geometry.output.fields()
        if rows.stride.denominator != 1 or columns.stride.denominator != 1:
            raise GeometryError(f"cells {rows.stride} by {columns.stride} pixels apart; leave upsampling out")
        self.stride = int(rows.stride), int(columns.stride)
        if isinstance(names, str):
            raise OptionError(f"names {names!r} are a text; give a list of one name a class")
        self.names = tuple(map(str, range(self.classes) if names is None else names))
        if len(set(self.names)) != self.classes or len(self.names) != self.classes:
            raise OptionError(
                f"{len(self.names)} names, {len(set(self.names))} of them different; give each of the {self.classes} "
                "classes its own"
            )
        if inputs is not None and inputs.channels != channels:
            raise OptionError(f"means of {inputs.channels} channels; the classifier takes {channels}")
        weight = first_weight(net)
        self.normalise = nn.Identity() if inputs is None else Normalise(inputs).to(weight.device, weight.dtype)

    @property
    def roomy(self) -> tuple[int, int]:
        """An image size that surely holds a field; with poolings that round up it may exceed the input size."""
        return 2 * self.input_size[0], 2 * self.input_size[1]

    def forward(self, x: Tensor) -> Tensor:
        self.require(x)
        return cast(Tensor, self.net(self.normalise(x)))

    def require(self, x: Tensor) -> None:
        """An image must be one that the net takes.

        Raises:
            GeometryError: no batch of images, other channels, or an image smaller than a window.
        """
        shape = tuple(getattr(x, "shape", ()))
        (height, width), channels = self.input_size, self.channels
        if len(shape) != 4 or shape[1] != channels or shape[2] < height or shape[3] < width:
            found = f"a tensor of shape {shape}" if shape else f"a {type(x).__name__}"
            raise GeometryError(
                f"{found}; expected (N, {channels}, H, W) with H of at least {height} and W of at least {width}"
            )

    def extra_repr(self) -> str:
        (height, width), (down, right) = self.input_size, self.stride
        return f"{self.classes} classes, windows of {height} x {width} every {down} x {right} pixels"


def convolutionalize(
    classifier: nn.Module,
    input_size: int | tuple[int, int],
    *,
    names: Sequence[str] | None = None,
    inputs: InputOptions | None = None,
    channels: int | None = None,
) -> DenseClassifier:
    """A fully convolutional net that computes what a classifier does, at every place of an image of any size.

    The tail that flattens, pools and connects is rewritten as convolutions and poolings of fixed size; everything else
    is kept, weights are copied, the classifier stays as it was. The result, in evaluation mode, is checked: at the
    input size against the classifier's logits, on a larger image against the classifier run on windows.

    Args:
        classifier: (N, C, H, W) -> logits (N, K), in any common style: flattening or pooling, and up to any number of
            fully connected layers, with batch norm, dropout and activations between them.
        input_size: H and W that it was trained on (one number: square).
        names: of the K classes.
        inputs: means, deviations and channel order, for pictures of 0..255 in RGB; without them the result takes what
            the classifier takes.
        channels: C; default: what the first convolution takes.

    Raises:
        GeometryError: a layer that has no convolutional form, with its name and the reason.
        OptionError: names or inputs that do not fit.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8 * 7 * 7, 10))
    >>> dense = convolutionalize(net, 32)
    >>> dense(torch.zeros(1, 3, 100, 80)).shape
    torch.Size([1, 10, 18, 13])
    """
    if not isinstance(classifier, nn.Module):
        raise OptionError(f"a classifier of type {type(classifier).__name__}; expected a module, such as MyNet()")
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size):
        raise OptionError(f"input size {input_size!r}; expected one whole number of pixels, or (H, W)")
    if inputs is not None and len(inputs.mean) == 3 and all(0 < v < 1 for v in (*inputs.mean, *inputs.std)):
        raise OptionError(
            f"means {inputs.mean} and deviations {inputs.std} are of pictures of 0..1; multiply them by 255"
        )
    taken = first_channels(classifier) if channels is None else channels
    with evaluating(classifier):
        rewriter = Rewriter(trace(classifier, (2, taken, *size)), classifier)
        dense = DenseClassifier(rewriter.dense(), size, taken, names, inputs).eval()
        dense.conformance = _checked(classifier, dense, rewriter)
    return dense


def _checked(classifier: nn.Module, dense: DenseClassifier, rewriter: Rewriter) -> Conformance:
    """Compare, on noise; raises GeometryError where more than rounding differs."""
    height, width = dense.input_size
    down, right = dense.stride
    parts: list[nn.Module] = [classifier, dense.net, rewriter.plain]
    kind = first_weight(classifier).dtype
    wide = torch.promote_types(kind, torch.float32)
    if wide != kind or any(each.device.type != "cpu" for each in classifier.parameters()):
        parts = [copy.deepcopy(each).to("cpu", wide) for each in parts]  # fast arithmetic of accelerators rounds a lot
    classifier, net, plain = parts[0], cast(Wired, parts[1]), cast(Wired, parts[2]).eval()
    larger = (height + (WINDOWS - 1) * down, width + (WINDOWS - 1) * right)
    image = torch.randn((1, dense.channels, *larger), generator=torch.Generator().manual_seed(0)).to(wide)

    def alone() -> Tensor:
        return image[:, :, :height, :width].clone()  # nets may change their inputs in place

    with torch.inference_mode():
        # A batch of one may be squeezed away.
        logits = _difference(net(alone()).reshape(-1), classifier(alone()).reshape(-1))
        rows, columns = trace(net, (1, dense.channels, height, width)).output.fields()
        local = min(rows.start, columns.start) >= 0 and rows.stops[0] <= height and columns.stops[0] <= width
        (start,) = plain.inputs
        cut = start if local else rewriter.cut()
        cells = None
        if local or cut != start:
            maps, found = net.until(rewriter.alias.get(cut, cut))(image.clone()), net(image.clone())
            size = plain.until(cut)(alone()).shape[2:]

            def tail(window: Tensor) -> Tensor:
                return cast(Tensor, plain.run({start: alone(), cut: window})[plain.output])

            cells = _difference_of_cells(found, maps, size, classifier if local else tail)
    worst = max(logits, cells or 0.0)
    if worst > max(TOLERANCE, torch.finfo(kind).eps):  # averages over windows of unequal size are weights too
        raise GeometryError(
            f"the dense form of {type(classifier).__name__} is off by {worst:.1e} of the largest logit; "
            "expected the same to rounding: please report this classifier"
        )
    return Conformance(logits, cells, "image" if cut == start else "map")


def _difference_of_cells(
    found: Tensor, maps: Tensor, size: Sequence[int], classify: Callable[[Tensor], Tensor]
) -> float:
    """The largest one of cells (1, K, h, w) from what `classify` gives for their windows, of `size`, of the maps."""
    down, right = (
        0 if n == 1 else (maps.shape[2 + axis] - size[axis]) // (n - 1) for axis, n in enumerate(found.shape[2:])
    )
    worst = 0.0
    for i in range(min(WINDOWS, found.shape[2])):
        for j in range(min(WINDOWS, found.shape[3])):
            window = maps[:, :, i * down :, j * right :][:, :, : size[0], : size[1]].clone()
            worst = max(worst, _difference(found[0, :, i, j], classify(window).reshape(-1)))
    return worst


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest one, of the largest finite value; infinite where only one of both is finite."""
    scale = theirs.abs().nan_to_num(0, 0).max().clamp(min=torch.finfo(theirs.dtype).tiny)
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    return float(torch.where(same, 0, (ours - theirs).abs()).nan_to_num(torch.inf).max() / scale)
