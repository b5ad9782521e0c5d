"""Large data sets: reading speed per format, and the cost of a million images: `python -m benchmarks.scale`.

The sets are drawn faces, each image with its own lighting, in a scratch folder (under TMPDIR) that is deleted
afterwards. Every measurement runs in its own process with a given number of threads. A restarted run resumes. Needs the
extras `stream` and `parquet`.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import harness, report
from benchmarks.gpu import DEVICES, Cell, compute_floor
from benchmarks.harness import Row, read_memory
from ffem_jax.latency.turns import measure_busy_cores

PER_PERSON, DRAWN_PEOPLE = 20, 500
IMAGES, SIDE = 4000, 112  # per format
READERS = ((1, 0), (2, 0), (0, 1), (0, 2), (0, 4))  # (decoding threads in one process, decoding processes)
SECONDS = 3.0  # per reading; there are five
MANY, MANY_SIDE, MANY_PER_EPOCH = 1_000_000, 32, 20_000  # the large set
STEPS = Path(__file__).parents[1] / "results" / "speed" / "train_step.jsonl"
LIBRARIES = ("jax", "grain", "pillow", "pyarrow")
Labelled = Iterable[tuple[bytes, int]]

# ------------------------------------------------------------------- the sets


def make_images(count: int, side: int) -> Iterator[tuple[bytes, int]]:
    """Yield JPEGs of drawn faces with labels, 20 per person; light and noise differ, so no two files are the same."""
    from ffem_jax.data import load_faces
    from ffem_jax.specs.data import DataSpec

    drawn = min(DRAWN_PEOPLE, -(-count // PER_PERSON))
    spec = DataSpec(name="synthetic", people=drawn, images_per_person=PER_PERSON, resolution=side)
    faces, random = np.array(load_faces(spec).images), np.random.default_rng(0)
    for number in range(count):
        noise = random.integers(-20, 21, (side // 8, side // 8, 1)).repeat(8, 0).repeat(8, 1)
        pixels = np.clip(faces[number % len(faces)] + noise + random.integers(-40, 41), 0, 255)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=85)
        yield file.getvalue(), number // PER_PERSON


def write_folder(root: Path, images: Labelled) -> None:
    """Write `root`/person/number.jpg."""
    for number, (image, label) in enumerate(images):
        path = root / f"{label:06d}" / f"{number:07d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image)


def write_recordio(root: Path, images: Labelled) -> None:
    """Write `root`/train.rec and train.idx as insightface packs them, without its per-person records."""
    place = 0
    with open(root / "train.rec", "wb") as records, open(root / "train.idx", "w") as index:
        for number, (image, label) in enumerate(images):
            content = pack("<IfQQ", 0, float(label), number, 0) + image
            index.write(f"{number}\t{place}\n")
            place += records.write(pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4))


def write_webdataset(root: Path, images: Labelled) -> None:
    """Write `root`/train-000.tar and so on, 1,000 images each."""
    for shard, members in itertools.groupby(enumerate(images), lambda member: member[0] // 1000):
        with tarfile.open(root / f"train-{shard:03d}.tar", "w:") as archive:
            for number, (image, label) in members:
                for ending, content in (("jpg", image), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:07d}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_parquet(root: Path, images: Labelled) -> None:
    """Write `root`/train.parquet as Hugging Face's `datasets` does, in groups of 100 rows."""
    from pyarrow import Table, parquet

    contents, labels = zip(*images, strict=True)
    column = [{"bytes": image, "path": f"{number}.jpg"} for number, image in enumerate(contents)]
    parquet.write_table(
        Table.from_pydict({"image": column, "label": labels}), root / "train.parquet", row_group_size=100
    )


def write_pairs(path: Path, images: Labelled) -> None:
    """Write an insightface evaluation file: pairs of successive images, from one person or from two."""
    pairs = list(itertools.islice(itertools.pairwise(images), PER_PERSON // 2 - 1, None, PER_PERSON // 2))
    content = [image for pair in pairs for image, _ in pair]
    path.write_bytes(pickle.dumps((content, [first[1] == second[1] for first, second in pairs])))


WRITERS: dict[str, Callable[[Path, Labelled], None]] = {
    "folder": write_folder,
    "recordio": write_recordio,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
}

# ------------------------------------------------------------------- measuring, each in a process of its own


def read_source(root: str, name: str, threads: int, processes: int) -> Row:
    """Measure images per second, shuffled, decoded and cropped as in training; the start is timed separately."""
    from ffem_jax.data import load_faces, read_ahead
    from ffem_jax.specs.data import DataSpec

    read_ahead.THREADS = threads
    with read_ahead.choose_loading("stream", processes):
        faces = load_faces(DataSpec(name=name, root=root, resolution=SIDE, cache_dir=f"{root}-cache"))
        order = np.random.default_rng(0).permutation(len(faces.labels))
        batches = np.tile(order[: len(order) // 32 * 32].reshape(-1, 32), (100, 1))
        began = time.perf_counter()
        reading = read_ahead.read_batches(faces.images, batches)
        for _ in range(2 * max(processes, 1)):  # so that each process has started
            next(reading)
        start, rates = time.perf_counter() - began, []
        for _ in range(5):
            read, began = 0, time.perf_counter()
            while time.perf_counter() - began < SECONDS:
                read += len(next(reading))
            rates.append(read / (time.perf_counter() - began))
        reading.close()
    return {"images_per_second": rates, "start_seconds": start, "images": len(order)}


def train_on(root: str, epochs: int) -> Row:
    """Run one short streamed trial; record its memory over time and the seconds until the first step."""
    began = time.perf_counter()
    from ffem_jax.runs.trial import run_trials
    from ffem_jax.specs.architecture import ArchSpec, StageSpec
    from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
    from ffem_jax.training.trainer import Trainer

    stages = (StageSpec(1, 8, 1, 2),)
    arch = ArchSpec(name="small", stem_channels=8, stages=stages, head_channels=0, embedding_dim=16)
    data = DataSpec(
        name="recordio", root=root, resolution=MANY_SIDE, cache_dir=f"{root}-cache", images_per_epoch=MANY_PER_EPOCH
    )
    protocol = ProtocolSpec(name="bins", bins=("drawn",), bins_root=root)
    spec = TrialSpec(arch=arch, data=data, protocol=protocol, recipe=RecipeSpec(epochs=epochs, batch_size=64))
    started: list[float] = []
    memory: list[float] = []
    fit = Trainer.fit

    def watch() -> None:
        while True:
            time.sleep(0.5)
            memory.append(read_memory("VmRSS") / 1e6)

    def note_start(trainer: Trainer, **options: Any) -> Any:
        started.append(time.perf_counter() - began)
        threading.Thread(target=watch, daemon=True).start()
        return fit(trainer, **options)

    Trainer.fit = note_start  # type: ignore[method-assign, assignment]
    out = Path(f"{root}-stream")
    run = RunSpec(progress=False, load="stream", retrain=True, cores=1)
    record = run_trials(spec, run, out, out / "records.jsonl")[0]
    if record.status != "done":
        raise SystemExit(record.error)
    return {
        "images": record.train_images,
        "seconds_to_training": started[0],
        "seconds": record.wall_seconds,
        "images_trained": epochs * MANY_PER_EPOCH,
        "memory": memory[:: max(1, len(memory) // 20)],
        "peak": read_memory("VmHWM") / 1e6,
        "data_wait_fraction": record.data_wait_fraction,
    }


def call(measure: Callable[..., Row], *arguments: object) -> Row:
    """Run `measure` in a new process and return its row with the machine's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return {**pool.submit(measure, *arguments).result(), **harness.describe_machine(LIBRARIES)}


def measure_sources(path: Path, root: Path) -> None:
    """Measure each format with each of READERS."""

    def measure(cell: Row) -> Row:
        place = root / cell["format"]
        if not place.exists():
            place.mkdir()
            WRITERS[cell["format"]](place, make_images(IMAGES, SIDE))
        busy = measure_busy_cores(1.0)
        row = call(read_source, str(place), cell["format"], cell["threads"], cell["processes"])
        return {**row, "busy_cores": max(busy, measure_busy_cores(1.0))}

    cells = {
        f"{name}, {name_reader(*reader)}": {"format": name, "threads": reader[0], "processes": reader[1], "side": SIDE}
        for name, reader in itertools.product(WRITERS, READERS)
    }
    harness.measure_missing(path, cells, lambda row: row["busy_cores"] <= 0.1, measure, False)


def name_reader(threads: int, processes: int) -> str:
    """Return `2 threads`, or `1 process`."""
    count, what = (threads, "thread") if threads else (processes, "process")
    return f"{count} {what}" + ("" if count == 1 else "s" if threads else "es")


def measure_million(path: Path, root: Path) -> None:
    """Write the set, scan it with a first trial, and train on it with a second."""
    place, began = root / "many", time.perf_counter()
    place.mkdir()
    write_recordio(place, make_images(MANY, MANY_SIDE))
    write_pairs(place / "drawn.bin", make_images(500, MANY_SIDE))
    row: Row = {"written_seconds": time.perf_counter() - began, "bytes": (place / "train.rec").stat().st_size}
    row |= {name: call(train_on, str(place), epochs) for name, epochs in (("first", 1), ("second", 6))}
    harness.append_rows(path, row)


# ------------------------------------------------------------------- the page


def describe_limits() -> str:
    """Describe how fast images are consumed: by a step here, and at most on a GPU."""
    wanted = {"network": "ffem_am", "resolution": 112}
    here = next(row for row in reversed(harness.read_lines(STEPS)) if wanted.items() <= row.items())
    eaten = report.write_range([images / seconds for images, seconds in here["contestants"]["ours"]["turns"]])
    lines = [f"- FFEM-AM at 112 pixels, batch 32, on {here['cores']} cores: {eaten}."]
    for precision in ("float32", "bfloat16"):
        seconds, limit = compute_floor(Cell("ours", "xla", precision, 512, 1, 112), DEVICES["H100"])
        most = f"at most {report.write_number(512 / seconds)}, limited by {limit}. Computed, not run."
        lines.append(f"- The same on an H100, {precision}, batch 512: {most}")
    return "\n".join(lines)


def write_page(out: Path) -> None:
    """Write results/scale/README.md from its records and those of the training step."""
    rows = harness.demand_rows(harness.read_latest(out / "sources.jsonl", "format", "threads", "processes", "side"))
    many = harness.demand_rows(harness.read_lines(out / "million.jsonl"))[-1]
    found = {(row["format"], row["threads"], row["processes"]): row["images_per_second"] for row in rows}
    table = [
        [name, *(report.write_range(found.get((name, *reader), [])) for reader in READERS)]
        for name in dict.fromkeys(row["format"] for row in rows)
    ]
    busy = max(row["busy_cores"] for row in rows)
    report.fill_page(
        out / "README.md",
        "scale",
        one=rows[-1],
        versions=report.describe_versions(rows[-1]),
        busy=busy,
        judged=report.judge_busy(busy),
        sources=report.write_table(["format", *(name_reader(*reader) for reader in READERS)], table),
        start=report.write_range([row["start_seconds"] for row in rows if row["processes"]]),
        limits=describe_limits(),
        first=many["first"],
        second=many["second"],
        gigabytes=many["bytes"] / 1e9,
        written=many["written_seconds"] / 60,
        looked=many["first"]["seconds_to_training"] / 60,
        last=many["second"]["memory"][-1],
        wait=100 * many["second"]["data_wait_fraction"],
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    options = harness.make_parser(__doc__, "scale").parse_args(words)
    if not options.report_only:
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # each training compiles its own programs
        with tempfile.TemporaryDirectory() as root:
            measure_sources(options.out / "sources.jsonl", Path(root))
            if not (options.out / "million.jsonl").exists():
                measure_million(options.out / "million.jsonl", Path(root))
    write_page(options.out)


if __name__ == "__main__":
    main()
