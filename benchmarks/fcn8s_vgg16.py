"""FCN-8s VGG16 as in the paper (pad 100, 21 classes): seconds and memory for scores and for labels.

    python benchmarks/fcn8s_vgg16.py --runs 5 --size 500

Ours against the plain net of tests/fcn_oracle.py with its dense deconvolutions, both with the same random weights,
scaled layer by layer to unit variance (zero weights give false figures). The variants take turns within one run,
since machines drift; every peak of memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fullconv import geometry
from fullconv.nets import FCN, build
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.precision import has_bfloat16, inference
from measure import ROOT, Action, commit, peak, take_turns

CLASSES = 21


def load_oracle() -> Any:
    """The module tests/fcn_oracle.py."""
    spec = importlib.util.spec_from_file_location("fcn_oracle", ROOT / "tests" / "fcn_oracle.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{ROOT}/tests/fcn_oracle.py is missing: run the benchmark in a checkout")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(width: float = 1.0) -> FCN:
    """Our net, evaluation mode."""
    return build("fcn8s-vgg16", CLASSES, padding="paper", width=width).eval()


def image(size: int) -> Tensor:
    """(1, 3, size, size) uint8 noise."""
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def whole(oracle: nn.Module | None, net: FCN | None, x: Tensor) -> dict[str, Action]:
    """The whole pass, by variant; only those of the nets given."""
    found: dict[str, Action] = {}
    if oracle is not None:
        found |= {"plain scores": lambda: oracle(x), "plain labels": lambda: oracle(x).argmax(1)}
    if net is not None:
        found |= {"fullconv scores": lambda: net(x), "fullconv labels": lambda: net.labels(x)}
    return found


def ends(size: int) -> dict[str, Action]:
    """From coarse scores to labels, by variant."""
    thin = ours(width=1 / 64)
    (_, axes) = thin.paths()[0]
    height, width = (geometry.output_size(axis, size) for axis in axes)
    head = next(iter(thin.coarse(image(1)).values())).head
    deconvolution, crop = load_oracle().deconvolution(CLASSES, 16, 8), slice(31, 31 + size)
    coarse = CoarseScores(torch.randn(1, CLASSES, height, width), (size, size), head)
    return {
        "plain deconvolution, argmax": lambda: deconvolution(coarse.scores)[:, :, crop, crop].argmax(1),
        "fullconv scores, argmax": lambda: coarse.upsample().argmax(1),
        "fullconv labels": coarse.labels,
    }


def peak_of_whole(variant: str, precision: str, size: int) -> float:
    """MiB that a process with one net holds at most, from its start to the answer for one image."""
    with torch.device("meta"):
        net = load_oracle().Oracle(8, CLASSES) if variant.startswith("plain") else ours()
    # Weights are made where they stay: no copy adds to the peak.
    weights = {name: torch.empty_like(t, device="cpu").normal_(std=0.01) for name, t in net.state_dict().items()}
    net.load_state_dict(weights, assign=True)
    if isinstance(net, FCN):
        net.reset_normalisation()
    x = image(size)
    with inference(net, precision):
        (whole(None, net, x) if isinstance(net, FCN) else whole(net, None, x))[variant]()
    return peak()


def peak_of_end(variant: str, size: int) -> float:
    """MiB that the end of the net adds to those held before."""
    actions, first = ends(size), ends(8)
    with torch.inference_mode():
        first[variant]()  # loads what is loaded once
        before = peak()
        actions[variant]()
        return peak() - before


def measured_peak(part: str, variant: str, precision: str, args: argparse.Namespace) -> float:
    """`peak_of_whole` or `peak_of_end` in a fresh process."""
    command = [
        sys.executable, __file__, "--size", str(args.size), "--threads", str(args.threads),
        "--peak-of", part, variant, precision,
    ]  # fmt: skip
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(part: str, precision: str, seconds: Mapping[str, list[float]], args: argparse.Namespace) -> None:
    """Rows of a markdown table."""
    for name, runs in seconds.items():
        mib = measured_peak(part, name, precision, args)
        print(
            f"| {name} | {precision} | {statistics.median(runs) * 1e3:.1f} | "
            f"{min(runs) * 1e3:.1f} ... {max(runs) * 1e3:.1f} | {mib:.0f} |",
            flush=True,
        )


def main() -> None:
    """Print what was measured where, and the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak-of", nargs=3, metavar=("PART", "VARIANT", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        part, variant, precision = args.peak_of
        whole_pass = part == "whole"
        print(peak_of_whole(variant, precision, args.size) if whole_pass else peak_of_end(variant, args.size))
        return

    precisions = ["float32"] + ["bfloat16"] * has_bfloat16(torch.device("cpu"))
    module, x = load_oracle(), image(args.size)
    oracle = module.random_oracle(8, CLASSES)
    with torch.device("meta"):
        net = ours()
    net.load_state_dict(module.fullconv_weights(oracle), assign=True)
    net.reset_normalisation()
    net.to_channels_last()
    print(
        f"{args.size}x{args.size}, {args.runs} runs in turns, {args.threads} threads, commit {commit()}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}\n"
    )
    with inference(net):
        expected, scores = oracle(x), net(x)
        agree = (net.labels(x) == expected.argmax(1)).float().mean().item()
    print(f"Scores differ by up to {(scores - expected).abs().max():.1e}; labels agree on {agree:.4%}.\n")
    print("| whole pass | precision | median ms | spread | peak MiB |\n|---|---|---|---|---|")
    for precision in precisions:
        with inference(net, precision):
            seconds = take_turns(whole(oracle, net, x), args.runs)
        table("whole", precision, seconds, args)
    print("\n| end of the net | precision | median ms | spread | added MiB |\n|---|---|---|---|---|")
    with torch.inference_mode():
        seconds = take_turns(ends(args.size), max(args.runs, 15))
    table("end", "float32", seconds, args)


if __name__ == "__main__":
    main()
