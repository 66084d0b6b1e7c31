"""From image to labels: engines beside the plain net, OpenVINO and ONNX Runtime as they come, and where time goes.

    python -m pip install onnx onnxscript onnxruntime --editable '.[openvino]' nncf
    python benchmarks/speed.py --threads 2 --repeats 7
    python benchmarks/speed.py --part frames --json > frames.json

Three parts:

whole   FCN-8s VGG16 with the paper's padding, 500x500, batch 1, uint8 image to labels: the plain net of
        tests/fcn_oracle.py in eager torch; the same net converted whole, upsampling and argmax included, by OpenVINO
        and by torch.onnx for ONNX Runtime; the plain FCN in bfloat16; and the engines. All have the same weights.
frames  fcn8s-slim and fcn8s-resnet18, same padding, at 360x480, 1080x1920 and 2160x3840: images a second.
end     of whole's net: the share of the step from coarse scores to labels, and what pasting the border that sees no
        image saves.

Weights are random, scaled so that every map is of deviation 1, about, and several classes win: the first line of a
part says so. Each way runs in a process of its own; all take turns, image by image, since machines drift. Labels are
compared with those of the part's first row (of frames: of the plain net in float32).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcn8s_vgg16 import load_oracle, ours
from fullconv.data.sample import Array
from fullconv.errors import FullconvError, OptionError
from fullconv.inference.benchmark import Entrant, benchmark, combinations, quick, race, request_of
from fullconv.inference.blank import Border
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.engines import Engine, engine
from fullconv.inference.model import Model
from fullconv.inference.pictures import Pictures, write_images
from fullconv.inference.staged import StagedNet
from fullconv.inference.timed import Labels, LabelTimer, Timer, read_images, serve, timer_of
from fullconv.inference.timings import PLAIN, Row, Timings, machine
from fullconv.machine import cores
from fullconv.nets import FCN
from fullconv.nets.rectangles import Size
from fullconv.nets.unit_scale import unit_scale
from fullconv.weights.modelfile import read_model
from measure import Action, commit, take_turns

PARTS = ("whole", "frames", "end")
FRAMES = ((360, 480), (1080, 1920), (2160, 3840))
NETS = ("fcn8s-slim", "fcn8s-resnet18")
CHILD = (sys.executable, __file__, "--child")

Record = dict[str, Any]


class Labelled(nn.Module):
    """The plain net with its argmax: (1, 3, H, W) float32 of 0..255 -> (1, H, W) int64."""

    def __init__(self, oracle: nn.Module) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.oracle(x)
        return scores.argmax(1)


def oracle_of(net: FCN) -> nn.Module:
    """The plain net with the weights of ours."""
    module = load_oracle()
    oracle: nn.Module = module.Oracle(8, net.options.classes["semantic"], net.options.width).eval()
    weights = net.state_dict()
    with torch.no_grad():
        for name, tensor in module.fullconv_weights(oracle).items():  # views of the oracle's own
            tensor.copy_(weights[name])
    return oracle.requires_grad_(False)


def nchw(image: Array) -> Array:
    """(H, W, C) uint8 -> (1, C, H, W) float32."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def eager(oracle: nn.Module) -> Labels:
    """The plain net in torch, as anyone would run it."""
    labelled = Labelled(oracle)

    @torch.inference_mode()
    def label(inputs: Any) -> dict[str, Array]:
        return {"semantic": labelled(torch.from_numpy(nchw(inputs["image"])))[0].byte().numpy()}

    return label


def straight_openvino(oracle: nn.Module, size: Size, precision: str) -> Labels:
    """The whole plain net as OpenVINO converts it, argmax included, for one size."""
    from fullconv.inference.openvino import runtime

    openvino = runtime()
    example = torch.zeros(1, 3, *size)
    with torch.no_grad():
        model = openvino.convert_model(Labelled(oracle), example_input=example, input=[example.shape])
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def label(inputs: Any) -> dict[str, Array]:
        found = request.infer([nchw(inputs["image"])])
        return {"semantic": next(iter(found.values()))[0].astype(np.uint8)}

    return label


def onnx_runtime(oracle: nn.Module, size: Size) -> Labels:
    """The whole plain net through torch.onnx, argmax included, for one size."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "net.onnx"
        torch.onnx.export(Labelled(oracle), (torch.zeros(1, 3, *size),), path, input_names=["x"], dynamo=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others have their turns
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def label(inputs: Any) -> dict[str, Array]:
        return {"semantic": session.run(None, {"x": nchw(inputs["image"])})[0][0].astype(np.uint8)}

    return label


def child(request: Record) -> Timer:
    """A way of part "whole" that the library does not have."""
    if request["kind"] == "net":
        return timer_of(request)
    torch.set_num_threads(request["threads"])
    net = read_model(request["model"]).net
    images = read_images(Path(request["images"]))
    height, width = images[0]["image"].shape[:2]
    oracle, multiplications = oracle_of(net), request["multiplications"]

    def make() -> tuple[Labels, Callable[[], int]]:
        kind = request["kind"]
        if kind == "eager":
            return eager(oracle), lambda: multiplications
        if kind == "openvino":
            return straight_openvino(oracle, (height, width), request["precision"]), lambda: multiplications
        return onnx_runtime(oracle, (height, width)), lambda: multiplications

    return LabelTimer(make, images)


def scale_of(net: FCN, image: Tensor) -> str:
    """Deviations of all maps, and how many classes win: figures of zeros would be false."""
    found: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, y: found.append(y.std().item()))
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        labels = next(iter(net.coarse(image).values())).labels()
    for hook in hooks:
        hook.remove()
    share = labels.flatten().bincount().max().item() / labels.numel()
    return (
        f"{len(found)} convolutions, deviations of their outputs {min(found):.2f} ... {max(found):.2f}; "
        f"{int((labels.flatten().bincount() > 0).sum())} classes win somewhere, one of them on {share:.0%}"
    )


def heavy(width: float) -> FCN:
    """FCN-8s VGG16 with the paper's padding, random weights at unit scale."""
    return unit_scale(ours(width)).eval()


def first_image(net: FCN, size: Size) -> Tensor:
    """(1, 3, H, W) uint8: what part "whole" is timed on."""
    image = next(Pictures.of(net, None).cut(size))["image"]
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def whole(args: argparse.Namespace) -> tuple[Timings, str]:
    """Every way from a uint8 image to labels."""
    size = args.size, args.size
    net = heavy(args.width)
    scale = scale_of(net, first_image(net, size))
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = place / "model.safetensors"
        Model(net).save(model)
        files = write_images(Pictures.of(net, None), size, place)
        multiplications = CroppedNet(net, lambda _: {}).multiplications(size)
        foreign = {
            "model": str(model), "images": str(files[0]), "multiplications": multiplications,
        }  # fmt: skip
        entrants = [Entrant("oracle, eager", "float32", {**foreign, "kind": "eager"}, CHILD)]
        for precision in [each for each in quick() if each != "int8"]:
            request = {**foreign, "kind": "openvino", "precision": precision}
            entrants.append(Entrant("oracle, OpenVINO", precision, request, CHILD))
        entrants.append(Entrant("oracle, ONNX Runtime", "float32", {**foreign, "kind": "onnx"}, CHILD))
        for pair in combinations(["torch", "openvino"], (), notes.append)[1:]:
            entrants.append(Entrant(*pair, request_of(model, pair, files)))
        entrants[1:1] = [
            Entrant(PLAIN, each, request_of(model, (PLAIN, each), files)) for each in quick() if each != "int8"
        ]
        rows, peaks = race(entrants, size, place, repeats=args.repeats, threads=args.threads, note=notes.append)
    result = Timings(
        "fcn8s-vgg16", args.threads, args.repeats, tuple(rows), peaks, {size: multiplications}, tuple(notes)
    )
    return result, scale


def frames(args: argparse.Namespace) -> Iterator[Timings]:
    """Images a second of small nets, net by net and size by size."""
    engines = ["plain", "torch", "openvino"]
    for name in NETS:
        for height, width in FRAMES:
            size = height // args.shrink, width // args.shrink
            yield benchmark(name, [size], engines, repeats=args.repeats, threads=args.threads)


@dataclass(frozen=True, eq=False)
class Unpasted(StagedNet):
    """Computes the border, too."""

    def borders(self, size: Size) -> dict[str, list[Border | None]]:
        """None."""
        del size
        return {name: [None] * len(stages) for name, stages in self.trunks.items()}


def unpasted(ready: Engine) -> Engine:
    """The engine without pasting."""
    if not isinstance(ready.cut, StagedNet):
        raise OptionError("a net that is not known in stages; expected FCN-8s VGG16")
    cut = ready.cut
    bare = Unpasted(cut.net, cut.kind, cut.trunks, cut.scores, cut.heads)
    return Engine(ready.net, ready.name, ready.precision, ready.why, bare, ready.tile, ready.memory)


def end(args: argparse.Namespace) -> tuple[list[Record], str]:
    """Times of the parts of a pass, in one process, by engine."""
    torch.set_num_threads(args.threads)
    size = args.size, args.size
    net = heavy(args.width)
    image = {"image": first_image(net, size)}
    found: list[Record] = []
    for name, precision in combinations(["torch", "openvino"], (), lambda _: None)[1:]:
        pasted = engine(net, name, precision, samples=[image])
        every = unpasted(pasted)
        with torch.inference_mode():
            coarse = pasted.coarse(image)["semantic"]
            actions: dict[str, Action] = {
                "coarse": partial(pasted.coarse, image),
                "labels": coarse.labels,
                "unpasted": partial(every.coarse, image),
            }
            seconds = {key: statistics.median(each) for key, each in take_turns(actions, args.repeats).items()}
        found.append(
            {
                "engine": name, "precision": precision,
                **{f"{key}_ms": 1e3 * each for key, each in seconds.items()},
                "labels_share": seconds["labels"] / (seconds["coarse"] + seconds["labels"]),
                "pasting_saves": 1 - seconds["coarse"] / seconds["unpasted"],
                "multiplications_saved": 1 - pasted.plan(size).multiplications / every.plan(size).multiplications,
            }
        )  # fmt: skip
    return found, scale_of(net, image["image"])


def table(result: Timings) -> str:
    """Rows of a markdown table; ratios are to the first process of the race, or the plain net in float32."""
    lines = [
        "| way | precision | size | median ms | quartiles | images/s | x | first call s | peak GiB | labels equal |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for row in result.rows:
        base = base_of(result, row)
        if row.error is not None or row.median is None or row.quartiles is None:
            lines.append(f"| {row.engine} | {row.precision} | {row.size[0]}x{row.size[1]} | {row.error} |||||||")
            continue
        low, high = (f"{1e3 * each:.1f}" for each in row.quartiles)
        ratio = "" if base is None else f"{base / row.median:.2f}"
        agreed = "" if row.agreement is None else f"{row.agreement:.4%}"
        lines.append(
            f"| {row.engine} | {row.precision} | {row.size[0]}x{row.size[1]} | {1e3 * row.median:.1f} "
            f"| {low} ... {high} | {1 / row.median:.2f} | {ratio} | {row.first or 0:.2f} "
            f"| {(row.memory or 0) / 2**30:.2f} | {agreed} |"
        )
    return "\n".join(lines)


def base_of(result: Timings, row: Row) -> float | None:
    """Seconds that a row's are compared with."""
    oracle = next((each for each in result.rows if each.engine == "oracle, eager" and each.size == row.size), None)
    return result.base.get(row.size) if oracle is None else oracle.median


def show(lines: Iterable[str], quiet: bool) -> None:
    """Print, unless a machine reads."""
    if not quiet:
        print("\n".join(lines), flush=True)


def run(args: argparse.Namespace) -> Record:
    """All parts asked for."""
    found: Record = {"commit": commit(), "machine": machine(), "threads": args.threads, "repeats": args.repeats}
    libraries = {name: version(name) for name in ("torch", "openvino", "onnxruntime", "nncf")}
    found["versions"] = libraries
    about = ", ".join(f"{name} {each}" for name, each in libraries.items())
    show([f"commit {found['commit']}, {args.threads} threads, medians of {args.repeats} in turns, {about}"], args.json)
    if "whole" in args.part:
        result, scale = whole(args)
        found["whole"] = {**result.to_json(), "scale": scale}
        peaks = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in result.peaks.items())
        head = f"\nFCN-8s VGG16, paper padding, {args.size}x{args.size}: {scale}; the machine's peak {peaks}\n"
        show([head, table(result), *result.notes], args.json)
    if "frames" in args.part:
        found["frames"] = []
        for each in frames(args):
            found["frames"].append(each.to_json())
            show([f"\n{each.model}\n", table(each), *each.notes], args.json)
    if "end" in args.part:
        rows, scale = end(args)
        found["end"] = {"rows": rows, "scale": scale}
        show([f"\nThe end of FCN-8s VGG16: {scale}\n", *end_table(rows)], args.json)
    return found


def end_table(rows: Sequence[Record]) -> list[str]:
    """Of part "end", markdown."""
    lines = [
        "| engine | precision | coarse ms | labels ms | share | without pasting ms | saved | multiplications saved |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        times = (f"{row[key]:.2f}" for key in ("coarse_ms", "labels_ms"))
        lines.append(
            f"| {row['engine']} | {row['precision']} | {' | '.join(times)} | {row['labels_share']:.2%} "
            f"| {row['unpasted_ms']:.2f} | {row['pasting_saves']:.1%} | {row['multiplications_saved']:.1%} |"
        )
    return lines


def main() -> None:
    """Print the tables, or one JSON object."""
    if sys.argv[1:] == ["--child"]:
        serve(child)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all; repeatable")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--size", type=int, default=500, help="of whole and end")
    parser.add_argument("--width", type=float, default=1.0, help="factor on VGG-16's channels, for a trial")
    parser.add_argument("--shrink", type=int, default=1, help="divides the sizes of frames, for a trial")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.part = args.part or list(PARTS)
    try:
        found = run(args)
    except FullconvError as error:
        raise SystemExit(str(error)) from error
    if args.json:
        print(json.dumps(found, allow_nan=False))


if __name__ == "__main__":
    main()
