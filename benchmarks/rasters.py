"""Rasters of any size through `fullconv predict`: seconds, peak memory, and what kills, a full disk and a lost file do.

    python benchmarks/rasters.py --data ../shared/data --work /tmp/rasters --json rasters.json

Parts, each by its name, all by default:

aerial  an aerial image stitched of 3x3 parts (4438 x 6447), with FCN-8s slim and FCN-8s ResNet-18, float32;
world   18000 x 36000 with FCN-8s slim of a quarter of the channels;
vgg     4000 x 4000 of the aerial image with FCN-8s VGG-16, float32 and bfloat16;
kills   SIGKILLs at random moments (seeded) of a raster of 3000 x 3000, gone on with by --resume;
disk    a tmpfs that is too small, and is then enlarged (where this process may mount one);
lost    the raster is moved away in the middle, and back.

The command runs as a process of its own, within --memory, and tells its peak (VmHWM) and the seconds of the net alone:
those of labelling less those of waiting for the file. Beside them stand the seconds of a crop of 2000 x 2000 in one
piece, by the plain net and by the engine, taking turns with the command; all are medians, the peak the highest. The
last three parts compare the finished file with that of a call that nothing interrupts, byte for byte; their parts, maps
and waits for the disk are smaller than usual, so that there is something to go on with. Weights are random. Exits with
1 where files differ, or a call says more than a line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from fullconv.data.windows import RasterReader
from fullconv.inference.engines import engine
from fullconv.inference.model import Model
from fullconv.inference.reference import Reference
from fullconv.inference.spool import JOURNAL, folder_of
from fullconv.nets import build
from measure import about, take_turns

CLASSES = 6

CHILD = """
import json, sys, time
from pathlib import Path
from fullconv.cli import main
from fullconv.inference import chunks, spool, strips, tiles
from measure import peak

facts = {"label": 0.0, "read": 0.0}

def timed(word, function):
    def call(*args, **options):
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            facts[word] += time.perf_counter() - start
    return call

strips.Strips.labels = timed("label", strips.Strips.labels)
chunks.Chunks.read = timed("read", chunks.Chunks.read)
if sys.argv[2] == "small":
    spool.SECONDS, tiles.PART_PIXELS, tiles.BUDGET = 0, 1 << 18, 1 << 18
report = Path(sys.argv[1])
sys.argv = ["fullconv", *sys.argv[3:]]
try:
    main()
finally:
    report.write_text(json.dumps({**facts, "peak": peak()}))
"""
"""`fullconv`, which writes down what it took."""


@dataclass
class Row:
    """What one run came to.

    Attributes:
        seconds: of the whole command.
        peak: MiB.
        net: seconds a megapixel of the net.
        plain, crop: the same of a crop in one piece, by the plain net and by the engine.
        error: the line that the command ended with.
    """

    raster: str
    net_name: str
    precision: str
    pixels: int
    seconds: float
    peak: float
    net: float
    plain: float | None = None
    crop: float | None = None
    error: str = ""

    def __str__(self) -> str:
        crops = " | ".join("-" if each is None else f"{each:.3f}" for each in (self.plain, self.crop))
        return (
            f"| {self.raster} | {self.net_name} | {self.precision} | {self.seconds:.0f} | {self.peak:.0f} | "
            f"{self.net:.3f} | {crops} | {self.error or 'yes'} |"
        )


@dataclass
class Trial:
    """What an interrupted call came to.

    Attributes:
        kept: parts on the disk at each stop.
        said: what was printed at the first stop.
        equal: whether the file is in the end that of a call that nothing interrupts.
    """

    name: str
    kept: list[int]
    said: str
    equal: bool

    def __str__(self) -> str:
        said = f"\n    {self.said}" if self.said else ""
        return f"{self.name}: {len(self.kept)} stops, parts kept {self.kept}; equal: {self.equal}{said}"


class Bench:
    """Where files lie, and how the command is run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.data, self.work, self.args = Path(args.data), Path(args.work), args
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows: list[Row] = []
        self.trials: list[Trial] = []

    def model(self, name: str, width: float = 1.0) -> Path:
        """A file with random weights whose scores say something."""
        path = self.work / f"{name}-{width:g}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            net = build(name, CLASSES, width=width)
            for parameter in net.heads.parameters():
                nn.init.normal_(parameter, std=0.1)
            Model(net).save(path)
        return path

    def aerial(self, side: int = 0) -> Path:
        """The stitched image, or a square of it, as a GeoTIFF."""
        parts = sorted((self.data / "aerial" / "Tile 8" / "images").glob("*.jpg"))
        path = self.work / f"aerial-{side or 'whole'}.tif"
        if not path.exists():
            pictures = [np.asarray(Image.open(part).convert("RGB")) for part in parts]
            whole = np.concatenate([np.concatenate(pictures[row : row + 3], axis=1) for row in (0, 3, 6)])
            write(path, whole[: side or None, : side or None])
        return path

    def world(self) -> Path:
        """The world, or as much of it as --side says."""
        path = self.data / "cog" / "cog_world.tif"
        if not self.args.side:
            return path
        with RasterReader(path) as reader:
            values = reader.read((6000, 6000 + self.args.side), (17000, 17000 + self.args.side))
        return write(self.work / f"world-{self.args.side}.tif", values)

    def start(self, words: Sequence[object], small: bool = False) -> subprocess.Popen[str]:
        """The command on its way."""
        how = [str(self.work / "report.json"), "small" if small else "usual"]
        threads = {name: str(self.args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *how, "predict", *map(str, words), "--memory", self.args.memory],
            env={**os.environ, **threads, "PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def measure(self, name: str, model: Path, raster: Path, precision: str = "float32", crop: int = 0) -> None:
        """One row: medians of runs of the command, and of crops in between."""
        with RasterReader(raster) as reader:
            pixels, crop = reader.size[0] * reader.size[1], min(crop, *reader.size)
        found: dict[str, list[float]] = {key: [] for key in ("seconds", "peak", "net", "plain", "crop")}
        actions = self.crops(model, raster, precision, crop) if crop else {}
        error = ""
        for _ in range(self.args.runs):
            begun = time.perf_counter()
            child = self.start([model, raster, "-o", self.work / "out.tif", "--precision", precision])
            _, said = child.communicate()
            found["seconds"].append(time.perf_counter() - begun)
            facts = json.loads((self.work / "report.json").read_text())
            found["peak"].append(facts["peak"])
            found["net"].append((facts["label"] - facts["read"]) / pixels * 1e6)
            error = said.strip() if child.returncode else error
            for key, (seconds, *_) in take_turns(actions, 1).items():
                found[key].append(seconds / crop**2 * 1e6)
        medians = {key: statistics.median(each) if each else None for key, each in found.items()}
        row = Row(name, model.stem, precision, pixels, **medians, error=error)  # type: ignore[arg-type]  # None: crops alone
        row.peak = max(found["peak"])
        (self.work / "out.tif").unlink(missing_ok=True)
        self.rows.append(row)
        print(row, flush=True)

    def crops(self, model: Path, raster: Path, precision: str, side: int) -> dict[str, Callable[[], object]]:
        """Labels of a crop from the middle in one piece: by the plain net, and by the engine."""
        with RasterReader(raster) as reader:
            top, left = ((n - side) // 2 for n in reader.size)
            values = reader.read((top, top + side), (left, left + side))
        x = {"image": torch.from_numpy(values).permute(2, 0, 1)[None]}
        net = Model.load(model).net.eval()
        plain, ours = Reference(net, precision), engine(net, precision=precision, tile="auto")

        def labels(run: Callable[[Any], Any]) -> Callable[[], object]:
            def action() -> object:
                with torch.inference_mode():
                    return run(x)["semantic"].labels()

            return action

        return {"plain": labels(plain.coarse), "crop": labels(ours.coarse)}

    def interrupted(self, name: str, folder: Path, stop: Callable[[Sequence[object], Trial], None]) -> None:
        """A call that `stop` interrupts as it likes, then gone on with, against one that nothing does."""
        model, raster = self.model("fcn8s-slim"), self.aerial(self.args.side or 3000)
        whole = self.work / "whole.tif"
        self.done([model, raster, "-o", whole])
        out = folder / "stopped.tif"
        trial = Trial(name, [], "", True)
        stop([model, raster, "-o", out, "--resume"], trial)
        if not out.exists():
            self.done([model, raster, "-o", out, "--resume"])
        trial.equal = trial.equal and out.read_bytes() == whole.read_bytes()
        out.unlink()
        self.trials.append(trial)
        print(trial, flush=True)

    def done(self, words: Sequence[object]) -> float:
        """Run the command to its end; seconds."""
        begun = time.perf_counter()
        child = self.start(words, small=True)
        _, said = child.communicate()
        if child.returncode:
            raise SystemExit(f"a run failed: {said}")
        return time.perf_counter() - begun

    def kills(self, words: Sequence[object], trial: Trial) -> None:
        """SIGKILL at random moments; finished files are compared, and begun again."""
        out, whole, rng = Path(str(words[3])), self.work / "whole.tif", random.Random(self.args.seed)
        span = self.done([*words[:3], self.work / "again.tif"])
        trial.equal = (self.work / "again.tif").read_bytes() == whole.read_bytes()
        (self.work / "again.tif").unlink()
        while len(trial.kept) < self.args.kills:
            child = self.start(words, small=True)
            try:
                _, said = child.communicate(timeout=rng.uniform(0.3, 1) * span)
                if child.returncode:
                    raise SystemExit(f"a run failed: {said}")
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.communicate()
                trial.kept.append(kept(out))
            if out.exists():
                trial.equal = trial.equal and out.read_bytes() == whole.read_bytes()
                out.unlink()

    def full_disk(self, words: Sequence[object], trial: Trial) -> None:
        """The first call finds no room, the next does."""
        out = Path(str(words[3]))
        child = self.start(words, small=True)
        _, said = child.communicate()
        self.said(trial, child.returncode, said, out)
        mount("-o", "remount,size=4g", str(out.parent))

    def lost(self, words: Sequence[object], trial: Trial) -> None:
        """The raster is moved away as soon as a part is done."""
        raster, out = Path(str(words[1])), Path(str(words[3]))
        child = self.start(words, small=True)
        while child.poll() is None and kept(out) < 1:
            time.sleep(0.005)
        away = raster.rename(raster.with_suffix(".away"))
        _, said = child.communicate()
        away.rename(raster)
        self.said(trial, child.returncode, said, out)

    def said(self, trial: Trial, code: int, said: str, out: Path) -> None:
        """Note how a call ended: with 1 and one line, but for the note of its plan."""
        lines = [line for line in said.splitlines() if not line.startswith("Note: ")]
        trial.said, trial.equal = " ".join(lines), code == 1 and len(lines) == 1
        trial.kept.append(kept(out))


def write(path: Path, values: NDArray[Any]) -> Path:
    """(H, W, 3) as a tiled GeoTIFF somewhere on earth."""
    import rasterio

    height, width, count = values.shape
    place = rasterio.Affine(0.5, 0, 330_000, 0, -0.5, 2_790_000)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype, crs="EPSG:32640",
        transform=place, tiled=True, blockxsize=256, blockysize=256, compress="deflate", interleave="pixel",
    ) as raster:  # fmt: skip
        raster.write(np.moveaxis(values, 2, 0))
    return path


def kept(out: Path) -> int:
    """Parts on the disk; -1 where nothing is there."""
    journal = folder_of(out) / JOURNAL
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return -1
    return int(lines[-1].split()[0]) if len(lines) > 1 and lines[-1][:1].isdigit() else 0


def mount(*words: str) -> bool:
    """Whether it was possible."""
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode == 0


def on_a_small_disk(bench: Bench) -> None:
    """A tmpfs with room for half of the labels; a note where none can be mounted."""
    folder = bench.work / "disk"
    folder.mkdir(exist_ok=True)
    if not mount("-t", "tmpfs", "-o", f"size={(bench.args.side or 3000) ** 2 // 2}", "tmpfs", str(folder)):
        print("disk: left out, this process may not mount a tmpfs")
        return
    try:
        bench.interrupted("a full disk", folder, bench.full_disk)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


PARTS = ("aerial", "world", "vgg", "kills", "disk", "lost")


def main() -> int:
    """Print the tables; 1 where files differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="a folder with aerial and cog")
    parser.add_argument("--work", required=True, help="a folder for rasters, models and results; some GB")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="of the command and of crops")
    parser.add_argument("--crop", type=int, default=2000, help="its rows and columns")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=0, help="rows and columns of every raster, for a trial")
    parser.add_argument("--json", help="a file for the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench, side = Bench(args), args.side
    print(f"--memory {args.memory}, {about(args.threads)}\n")
    print("| raster | net | precision | seconds | peak, MiB | net, s/Mpx | plain crop | engine crop | done |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    if "aerial" in args.parts:
        for name in ("fcn8s-slim", "fcn8s-resnet18"):
            bench.measure("aerial", bench.model(name), bench.aerial(side), crop=args.crop)
    if "world" in args.parts:
        bench.measure("world", bench.model("fcn8s-slim", 0.25), bench.world(), crop=args.crop)
    if "vgg" in args.parts:
        for precision in ("float32", "bfloat16"):
            bench.measure("aerial", bench.model("fcn8s-vgg16"), bench.aerial(side or 4000), precision)
    print()
    if "kills" in args.parts:
        bench.interrupted("SIGKILL", bench.work, bench.kills)
    if "disk" in args.parts:
        on_a_small_disk(bench)
    if "lost" in args.parts:
        bench.interrupted("a lost raster", bench.work, bench.lost)
    if args.json:
        found = {"rows": [asdict(row) for row in bench.rows], "trials": [asdict(trial) for trial in bench.trials]}
        Path(args.json).write_text(json.dumps({"about": about(args.threads), **found}, indent=1) + "\n", "utf-8")
    return int(any(not trial.equal for trial in bench.trials) or any(row.error for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
