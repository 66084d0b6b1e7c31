"""CamVid from random weights: the field's nets under the budget of benchmarks/camvid.py, which trains ours.

    python3.11 -m venv peers-env
    peers-env/bin/pip install torch==2.13.0 torchvision segmentation-models-pytorch --editable .
    peers-env/bin/python benchmarks/peers.py ../shared/data/camvid --minutes 15 --seeds 0 1 2 --out peers.jsonl
    peers-env/bin/python benchmarks/peers.py ../shared/data/camvid --grid --seeds 0 1 2 --out peers.jsonl

Unet and FPN of segmentation_models_pytorch and the FCN of torchvision, each as its library makes it, in a plain loop of
good practice: AdamW (or fullconv's Muon, which is news to their libraries), linear rise and half a cosine to 0 by the
clock, bfloat16 autocast, channels last, norms of gradients clipped. Reader, memory, order, augmentation and class
weights are fullconv's, so that nets and loops alone differ.

What favours the peers: the minutes are those of training alone (ours include import, decoding, scores and report), and
--grid chooses by val before the choice trains for the whole time: of `--grid-minutes` each, the scales at the middle
rate, the other rates at the best scale, and the other optimiser. What does
not: the last weights are scored, once, and not the best of several evaluations. Scores are those of val at its native
size, whatever the scale of training; at a scale below 1 images are reduced, and scores enlarged before the argmax.

Prints a JSON line a run and tables; with --out a run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read as torch loads; spinning threads starve the loader

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import fullconv
from fullconv.data import open_dataset
from fullconv.data.augment import Augmentation
from fullconv.data.check import CachedDataset, check, require_usable
from fullconv.data.sample import IMAGE, SEMANTIC, Dataset, Sample, Values
from fullconv.inference.batches import ahead, to_tensor
from fullconv.labels import VOID
from fullconv.metrics import ConfusionMatrix, Scores
from fullconv.training.draws import Batches
from fullconv.training.loading import Loader
from fullconv.training.losses import class_weights
from fullconv.training.muon import Muon
from fullconv.training.schedule import rate
from measure import commit

MODELS = ("unet-resnet18", "fpn-resnet18", "fcn_resnet50", "fcn_resnet50-noaux")
"""torchvision's published FCN was trained with the auxiliary loss: that is the usual one."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, 0..1: what these nets are fed."""

FACTORS = {"out": 1.0, "aux": 0.5}
"""On the losses of a net's outputs; the second is that of torchvision's own training script."""

WARMUP, CLIP, MULTIPLE = 0.03, 5.0, 32
GRID_LR, GRID_LRS, GRID_SCALES = 1e-3, (5e-4, 2e-3), (1.0, 0.5)
MUON_LR = 2e-3
"""The rate of fullconv's `scratch`."""
CPU = torch.device("cpu")

Record = dict[str, Any]
KEPT: list[object] = []
"""Declared operators: they are gone with the object that declared them."""


@dataclass(frozen=True)
class Setting:
    """What a run is; two runs of one setting are the same run.

    Attributes:
        scale: of the images in training and prediction.
        crop: side of a training crop in pixels of the native image; of the scaled one it is the next multiple of 32.
    """

    model: str
    optimizer: str
    lr: float
    scale: float
    seed: int
    minutes: float
    batch: int
    crop: int
    weight_decay: float
    precision: str
    threads: int


def libraries() -> tuple[Any, Any]:
    """(segmentation_models_pytorch, torchvision).

    Beside a torch that is not of its own build torchvision's compiled operators do not load; none of them is used
    here, but two must be known by name before it can be imported.
    """
    try:
        import torchvision
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            operators.define(schema)  # type: ignore[no-untyped-call]
        KEPT.append(operators)
        import torchvision
    import segmentation_models_pytorch as smp
    import torchvision.models.segmentation

    return smp, torchvision


def build(model: str, classes: int) -> nn.Module:
    """A net of `MODELS` with random weights."""
    smp, torchvision = libraries()
    fcn = torchvision.models.segmentation.fcn_resnet50
    nets: dict[str, Callable[[], nn.Module]] = {
        "unet-resnet18": lambda: smp.Unet("resnet18", encoder_weights=None, classes=classes),
        "fpn-resnet18": lambda: smp.FPN("resnet18", encoder_weights=None, classes=classes),
        "fcn_resnet50": lambda: fcn(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True),
        "fcn_resnet50-noaux": lambda: fcn(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False),
    }
    return nets[model]()


class Data:
    """Both splits, decoded, in memory."""

    def __init__(self, path: str) -> None:
        self.train, self.val = (check(open_dataset(path, name), cache_bytes=1 << 36) for name in ("train", "val"))
        for split in (self.train, self.val):
            require_usable(split)
        self.names = self.train.dataset.labels[SEMANTIC].names


def scaled(data: Dataset, scale: float) -> Dataset:
    """The samples in another size, in memory: images antialiased, masks by nearest pixel."""
    if scale == 1:
        return data
    return CachedDataset(data, {index: _resized(data[index], scale) for index in range(len(data))})


def _resized(sample: Sample, scale: float) -> Sample:
    height, width = (round(side * scale) for side in sample.size)

    def resized(array: Values, method: Image.Resampling) -> Values:
        return np.asarray(Image.fromarray(array).resize((width, height), method))

    image = resized(sample.inputs[IMAGE], Image.Resampling.BILINEAR)
    return Sample(sample.name, {IMAGE: image}, {SEMANTIC: resized(sample.masks[SEMANTIC], Image.Resampling.NEAREST)})


def normalised(images: list[Values]) -> Tensor:
    """(H, W, 3) uint8 each -> (N, 3, H, W) float32, channels last in memory."""
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return to_tensor(images, CPU).float().sub_(mean).div_(std)


def outputs(net: nn.Module, images: Tensor, precision: str) -> dict[str, Tensor]:
    """Scores (N, K, H, W) float32 by the names of `FACTORS`."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        scores = net(images)
    named = scores if isinstance(scores, dict) else {"out": scores}
    return {name: each.float() for name, each in named.items()}


def optimizer_of(net: nn.Module, setting: Setting, classes: int) -> torch.optim.Optimizer:
    """AdamW, or Muon for all convolutions but the last ones, that leaves norms and biases undecayed."""
    parameters = list(net.parameters())
    last = {id(p) for p in parameters if p.ndim == 4 and len(p) == classes}
    matrices = [p for p in parameters if p.ndim == 4 and id(p) not in last]
    others = [p for p in parameters if p.ndim > 1 and (p.ndim != 4 or id(p) in last)]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": setting.weight_decay, "matrices": True},
        {"params": others, "weight_decay": setting.weight_decay, "matrices": False},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "matrices": False},
    ]
    if setting.optimizer == "muon":
        return Muon(groups, lr=setting.lr)
    return torch.optim.AdamW(groups, lr=setting.lr, fused=True)


def train(net: nn.Module, data: Data, setting: Setting) -> Record:
    """Train until the time is over; steps, seconds, images a second, and the mean loss of every tenth of the time."""
    dataset = scaled(data.train.dataset, setting.scale)
    side = -(-round(setting.crop * setting.scale) // MULTIPLE) * MULTIPLE
    augmentation = Augmentation((side, side), (0.7, 1.5), flip=True, jitter=0.3)
    factors = class_weights(data.train.pixels[SEMANTIC].tolist(), "sqrt")
    weights = None if factors is None else torch.tensor(factors)
    optimizer = optimizer_of(net, setting, len(data.names))
    net.train()
    loader = Loader(dataset, [dataset[i].size for i in range(len(dataset))], augmentation, setting.seed)
    batches = Batches(len(dataset), setting.batch, setting.seed)
    losses: list[list[float]] = [[] for _ in range(10)]
    with closing(ahead(loader, batches, threads=1, depth=4)) as loading:
        steps, seconds, start = 0, 0.0, time.perf_counter()
        while (progress := seconds / (60 * setting.minutes)) < 1:
            (batch,) = next(loading)
            for group in optimizer.param_groups:
                group["lr"] = setting.lr * rate("cosine", WARMUP, progress)
            target = torch.from_numpy(np.stack(batch.masks[SEMANTIC])).long()
            found = outputs(net, normalised(batch.inputs[IMAGE]), setting.precision)
            each = [FACTORS[name] * F.cross_entropy(s, target, weights, ignore_index=VOID) for name, s in found.items()]
            loss = torch.stack(each).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()
            losses[int(10 * progress)].append(loss.item())
            steps, seconds = steps + 1, time.perf_counter() - start
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "images_per_s": round(steps * setting.batch / seconds, 2),
        "losses": [round(statistics.fmean(part), 4) for part in losses if part],
    }


@torch.inference_mode()
def score(net: nn.Module, data: Data, setting: Setting) -> Scores:
    """Of val at its native size."""
    net.eval()
    native = data.val.dataset
    matrix = ConfusionMatrix(len(data.names))
    reduced = scaled(native, setting.scale)
    for index in range(len(native)):
        truth, image = native[index].masks[SEMANTIC], reduced[index].inputs[IMAGE]
        height, width = image.shape[:2]
        # Encoders of stride 32 take nothing else; at the margin the image goes on as it ends.
        padded = F.pad(normalised([image]), (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        scores = outputs(net, padded, setting.precision)["out"][:, :, :height, :width]
        if setting.scale != 1:
            scores = F.interpolate(scores, truth.shape, mode="bilinear")
        matrix.update(truth, scores[0].argmax(0).byte().numpy())
    return matrix.scores()


def measure(setting: Setting, data: Data) -> Record:
    """One run: the setting, what came of it, and what it ran on."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    net = build(setting.model, len(data.names))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = train(net, data, setting)
    scores = score(net, data, setting)
    smp, torchvision = libraries()
    return {
        **asdict(setting),
        **trained,
        "mean_iu": scores.mean_iu,
        "pixel_accuracy": scores.pixel_accuracy,
        "iu": dict(zip(data.names, scores.iu, strict=True)),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "versions": {
            "torch": str(torch.__version__),
            "segmentation_models_pytorch": str(smp.__version__),
            "torchvision": str(torchvision.__version__),
            "fullconv": f"{fullconv.__version__} ({commit()})",
        },
    }


class Runs:
    """Records of runs, in a file if there is a path: what is there is not measured again."""

    def __init__(self, data: Data, path: Path | None) -> None:
        self.data, self.path = data, path
        self.known: list[Record] = []
        if path is not None and path.exists():
            self.known = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def of(self, setting: Setting) -> Record:
        """The record of a run, printed."""
        wanted = asdict(setting).items()
        found = next((each for each in self.known if wanted <= each.items()), None)
        record = found or measure(setting, self.data)
        line = json.dumps(record)
        if found is None:
            self.known.append(record)
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        print(line, flush=True)
        return record


def table(records: Iterable[Record]) -> str:
    """A row for the seeds of a setting: mean, and standard deviation where there are several."""
    rows: dict[tuple[Any, ...], list[Record]] = {}
    for each in records:
        rows.setdefault((each["model"], each["optimizer"], each["lr"], each["scale"], each["minutes"]), []).append(each)
    lines = [
        "| model | optimizer | lr | scale | minutes | seeds | parameters | images/s | mean IU | standard deviation |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, optimizer, lr, scale, minutes), runs in rows.items():
        ius = [run["mean_iu"] for run in runs]
        spread = f"{statistics.stdev(ius):.4f}" if len(ius) > 1 else "-"
        speed = statistics.median(run["images_per_s"] for run in runs)
        lines.append(
            f"| {model} | {optimizer} | {lr:g} | {scale:g} | {minutes:g} | {len(runs)} | "
            f"{runs[0]['parameters'] / 1e6:.1f} M | {speed:.1f} | {statistics.fmean(ius):.4f} | {spread} |"
        )
    return "\n".join(lines)


def _best(tried: Iterable[tuple[Record, Setting]]) -> Setting:
    return max(tried, key=lambda pair: pair[0]["mean_iu"])[1]


def main() -> None:
    """Print a line a run, and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS[:3])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--lr", type=float, default=GRID_LR)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--grid", action="store_true", help="choose these three in short runs of the first seed")
    parser.add_argument("--grid-minutes", type=float, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=288, help="side, in pixels of the native image")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines, appended")
    args = parser.parse_args()
    common = args.batch, args.crop, args.weight_decay, args.precision, args.threads
    runs = Runs(Data(args.data), args.out)
    tuned, final = [], []
    for model in args.models:
        chosen = Setting(model, args.optimizer, args.lr, args.scale, args.seeds[0], args.minutes, *common)
        if args.grid:
            short = replace(chosen, optimizer="adamw", lr=GRID_LR, minutes=args.grid_minutes)
            tried = [(runs.of(each), each) for each in (replace(short, scale=scale) for scale in GRID_SCALES)]
            scale = _best(tried).scale
            others = [replace(short, scale=scale, lr=lr) for lr in GRID_LRS]
            others.append(replace(short, scale=scale, lr=MUON_LR, optimizer="muon"))
            tried += [(runs.of(each), each) for each in others]
            tuned += [record for record, _ in tried]
            chosen = replace(_best(tried), minutes=args.minutes)
        final += [runs.of(replace(chosen, seed=seed)) for seed in args.seeds]
    for records in (tuned, final):
        if records:
            print(f"\n{table(records)}")


if __name__ == "__main__":
    main()
