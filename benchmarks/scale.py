"""Large sets: how fast each format is read, and what a million images take: `python -m benchmarks.scale`.

The sets are drawn faces, each image in a light of its own, in a scratch folder that is deleted. Every measurement has a
process of its own, with the threads that it is given. Needs the extras `stream` and `parquet`.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from struct import pack

import numpy as np
from PIL import Image

from benchmarks.gpu import DEVICES, Cell, compute_floor
from benchmarks.harness import (
    Row,
    add_numbers,
    append_rows,
    demand_rows,
    describe_machine,
    make_environment,
    make_parser,
    measure_busy_cores,
    measure_missing,
    read_latest,
    read_lines,
    read_memory,
)
from benchmarks.report import fill_page, judge_busy, tabulate, write_number, write_range

PER_PERSON, DRAWN_PEOPLE = 20, 500
STEPS = Path(__file__).parents[1] / "results" / "speed" / "train_step.jsonl"
LIBRARIES = ("jax", "grain", "pillow", "pyarrow")

# ------------------------------------------------------------------- the sets


def make_images(count: int, side: int) -> Iterator[tuple[bytes, int]]:
    """JPEGs of drawn faces with their labels, 20 per person; light and noise differ, so that no two are one file."""
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


def write_folder(root: Path, images: Iterable[tuple[bytes, int]]) -> None:
    """`root`/person/number.jpg."""
    for number, (image, label) in enumerate(images):
        path = root / f"{label:06d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def write_recordio(root: Path, images: Iterable[tuple[bytes, int]]) -> None:
    """`root`/train.rec and train.idx, as insightface packs them, without the records of people."""
    place = 0
    with open(root / "train.rec", "wb") as records, open(root / "train.idx", "w") as index:
        for number, (image, label) in enumerate(images):
            content = pack("<IfQQ", 0, float(label), number, 0) + image
            index.write(f"{number}\t{place}\n")
            place += records.write(pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4))


def write_webdataset(root: Path, images: Iterable[tuple[bytes, int]]) -> None:
    """`root`/train-000.tar and so on, 1,000 images each."""
    archive = None
    for number, (image, label) in enumerate(images):
        if number % 1000 == 0:
            if archive:
                archive.close()
            archive = tarfile.open(root / f"train-{number // 1000:03d}.tar", "w:")  # noqa: SIM115
        assert archive
        for ending, content in (("jpg", image), ("cls", str(label).encode())):
            member = tarfile.TarInfo(f"{number:07d}.{ending}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if archive:
        archive.close()


def write_parquet(root: Path, images: Iterable[tuple[bytes, int]]) -> None:
    """`root`/train.parquet as Hugging Face's `datasets` writes it, in groups of 100 rows."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": image, "path": f"{number}.jpg"}, "label": label}
        for number, (image, label) in enumerate(images)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "train.parquet", row_group_size=100)


def write_pairs(path: Path, images: Iterable[tuple[bytes, int]]) -> None:
    """An evaluation file of insightface's: every image with the next one, of one person or of two."""
    made = list(images)
    pairs = [(made[place], made[place + 1]) for place in range(PER_PERSON // 2 - 1, len(made) - 1, PER_PERSON // 2)]
    content = [image for pair in pairs for image, _ in pair]
    path.write_bytes(pickle.dumps((content, [first[1] == second[1] for first, second in pairs])))


WRITERS: dict[str, Callable[[Path, Iterable[tuple[bytes, int]]], None]] = {
    "folder": write_folder,
    "recordio": write_recordio,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
}

# ------------------------------------------------------------------- measuring, each in a process of its own


def read_source(root: str, name: str, side: int, threads: int, seconds: float) -> Row:
    """Images per second of a shuffled reading, decoded and cut, as a training asks for them."""
    from ffem_jax.data import load_faces, stream
    from ffem_jax.specs.data import DataSpec

    stream.THREADS = threads
    with stream.choose_loading("stream"):
        faces = load_faces(DataSpec(name=name, root=root, resolution=side, cache_dir=f"{root}-cache"))
    order = np.random.default_rng(0).permutation(len(faces.labels))
    batches = order[: len(order) // 32 * 32].reshape(-1, 32)
    read, rates = 0, []
    for _ in stream.read_batches(faces.images, batches[:2]):
        pass  # what is imported is imported
    for _ in range(5):
        reading, began = stream.read_batches(faces.images, batches), time.perf_counter()
        for batch in reading:
            read += len(batch)
            if time.perf_counter() - began > seconds:
                break
        rates.append(read / (time.perf_counter() - began))
        reading.close()
        read = 0
    return {"images_per_second": rates, "images": len(order)}


def train_on(root: str, load: str, side: int, epochs: int, images_per_epoch: int) -> Row:
    """One short trial; its memory all along and the seconds until the first step."""
    began = time.perf_counter()
    from ffem_jax.runs import trial as trials
    from ffem_jax.specs.architecture import ArchSpec, StageSpec
    from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
    from ffem_jax.training.trainer import Trainer

    arch = ArchSpec(
        name="small", stem_channels=8, stages=(StageSpec(1, 8, 1, 2),), head_channels=0, embedding_dim=16
    )  # fmt: skip
    data = DataSpec(
        name="recordio", root=root, resolution=side, cache_dir=f"{root}-cache", images_per_epoch=images_per_epoch
    )  # fmt: skip
    protocol = ProtocolSpec(name="bins", bins=("drawn",), bins_root=root)
    spec = TrialSpec(arch=arch, data=data, protocol=protocol, recipe=RecipeSpec(epochs=epochs, batch_size=64))
    started, ended, memory = [0.0], threading.Event(), []
    fit = Trainer.fit

    def note_start(trainer: Trainer, *arguments: object, **options: object) -> object:
        started[0] = time.perf_counter() - began
        return fit(trainer, *arguments, **options)  # type: ignore[arg-type]

    def watch() -> None:
        while not ended.wait(0.5):
            if started[0]:
                memory.append(read_memory("VmRSS") / 1e6)

    Trainer.fit = note_start  # type: ignore[method-assign, assignment]
    threading.Thread(target=watch, daemon=True).start()
    run = RunSpec(progress=False, load=load, retrain=True, cores=1)
    record = trials.run_trials(spec, run, Path(f"{root}-{load}"), Path(f"{root}-{load}") / "records.jsonl")[0]
    ended.set()
    if record.status != "done":
        raise SystemExit(record.error)
    return {
        "images": record.train_images,
        "seconds_to_training": started[0],
        "seconds": record.wall_seconds,
        "images_trained": epochs * images_per_epoch,
        "memory": memory[:: max(1, len(memory) // 20)],
        "peak": read_memory("VmHWM") / 1e6,
        "data_wait_fraction": record.data_wait_fraction,
    }


def call(what: str, *words: object) -> Row:
    """What a function of this module measures in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--child", what, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=make_environment())
    if done.returncode:
        raise SystemExit(f"{what} {' '.join(map(str, words))}: {done.stderr.strip().splitlines()[-1]}")
    return {**json.loads(done.stdout.splitlines()[-1]), **describe_machine(LIBRARIES)}


def measure_sources(options: argparse.Namespace, path: Path, root: Path) -> None:
    """Each format by each number of threads."""
    written: set[str] = set()

    def measure(cell: Row) -> Row:
        place = root / cell["format"]
        if cell["format"] not in written:
            place.mkdir()
            WRITERS[cell["format"]](place, make_images(options.images, options.side))
            written.add(cell["format"])
        busy = measure_busy_cores(1.0)
        row = call("source", place, cell["format"], options.side, cell["threads"], options.seconds)
        return {**row, "busy_cores": max(busy, measure_busy_cores(1.0))}

    cells = {
        f"{name}, {threads} threads": {"format": name, "threads": threads, "side": options.side}
        for name in WRITERS
        for threads in options.threads
    }
    measure_missing(path, cells, lambda row: row["busy_cores"] <= 0.1, measure, options.fresh)


def measure_million(options: argparse.Namespace, path: Path, root: Path) -> None:
    """The set is written, looked through by a first trial, and trained on by a second."""
    if read_lines(path) and not options.fresh:
        return
    place, began = root / "many", time.perf_counter()
    place.mkdir()
    write_recordio(place, make_images(options.many, 32))
    write_pairs(place / "drawn.bin", make_images(500, 32))
    row: Row = {"written_seconds": time.perf_counter() - began, "bytes": (place / "train.rec").stat().st_size}
    for name, epochs in (("first", 1), ("second", 6)):
        row[name] = call("train", place, "stream", 32, epochs, options.per_epoch)
    append_rows(path, row)


# ------------------------------------------------------------------- the page


def describe_limits(speeds: Sequence[Row]) -> str:
    """What eats the images: a step here, and on a GPU at the least."""
    here = next(row for row in reversed(speeds) if (row["network"], row["resolution"]) == ("ffem_am", 112))
    eaten = [images / seconds for images, seconds in here["contestants"]["ours"]["turns"]]
    lines = [f"- FFEM-AM at 112 pixels, batch 32, on {here['cores']} cores: {write_range(eaten)}."]
    for precision in ("float32", "bfloat16"):
        seconds, limit = compute_floor(Cell("ours", "xla", precision, 512, 1, 112), DEVICES["H100"])
        most = write_number(512 / seconds)
        lines.append(
            f"- The same on an H100, {precision}, batch 512: at most {most}, by its {limit}. Computed, not run."
        )
    return "\n".join(lines)


def write_page(out: Path, speeds: Path) -> str:
    """results/scale/README.md from its records and those of the training step."""
    rows = demand_rows(read_latest(out / "sources.jsonl", "format", "threads", "side"))
    many = demand_rows(read_lines(out / "million.jsonl"))[-1]
    threads = sorted({row["threads"] for row in rows})
    by = {(row["format"], row["threads"]): row for row in rows}
    columns: dict[str, Callable[[str], object]] = {"format": str}
    for count in threads:
        columns[f"{count} threads" if count > 1 else "1 thread"] = lambda name, count=count: (  # type: ignore[misc]
            write_range(by[name, count]["images_per_second"]) if (name, count) in by else "-"
        )
    first, second = many["first"], many["second"]
    busy = max(row["busy_cores"] for row in rows)
    machine = rows[-1]
    return fill_page(
        out / "README.md",
        "scale",
        processor=machine["processor"],
        cores=machine["cores"],
        date=machine["date"],
        versions=", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        images=rows[0]["images"],
        side=rows[0]["side"],
        busy=busy,
        judged=judge_busy(busy),
        sources=tabulate(list(dict.fromkeys(row["format"] for row in rows)), columns),
        limits=describe_limits(read_lines(speeds)),
        many=first["images"],
        many_cores=first["cores"],
        gigabytes=many["bytes"] / 1e9,
        written=many["written_seconds"] / 60,
        looked=first["seconds_to_training"] / 60,
        start=second["seconds_to_training"],
        trained=second["images_trained"],
        early=second["memory"][1],
        late=second["memory"][-1],
        peak=second["peak"],
        first_peak=first["peak"],
        wait=100 * second["data_wait_fraction"],
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    parser = make_parser(__doc__, "scale")
    add_numbers(
        parser,
        images=(4000, "images of each format"),
        side=(112, "their side, pixels"),
        threads=([1, 2, 4], "threads that decode"),
        seconds=(3.0, "of reading, five times"),
        many=(1_000_000, "images of the large set, 32 pixels"),
        per_epoch=(20_000, "of them in an epoch"),
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is held")
    parser.add_argument("--scratch", type=Path, help="where the sets lie meanwhile (default: the system's)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.child:
        what, root, name, *numbers = options.child
        if what == "source":
            print(json.dumps(read_source(root, name, int(numbers[0]), int(numbers[1]), float(numbers[2]))))
        else:
            print(json.dumps(train_on(root, name, *map(int, numbers))))
        return
    if not options.report_only:
        with tempfile.TemporaryDirectory(dir=options.scratch) as root:
            measure_sources(options, options.out / "sources.jsonl", Path(root))
            measure_million(options, options.out / "million.jsonl", Path(root))
    write_page(options.out, STEPS)


if __name__ == "__main__":
    main()
