"""docs/teacher.md, from a large model to a small file, on drawn faces, with one of our own exports as the teacher."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffem_jax.cli import BAD_USAGE, DONE, main
from ffem_jax.data import load_faces
from ffem_jax.data.pairs import read_pairs
from ffem_jax.export.embedder import load_exported
from ffem_jax.metrics.verification import compute_fold_hits, compute_pair_distances
from ffem_jax.records.record import read_records
from ffem_jax.specs.trial import DataSpec
from ffem_jax.teachers.vectors import read_vectors

pytest.importorskip("onnxruntime")

SMALL = [
    "data.resolution=16", "protocol.test_per_person=1", "arch.stem_stride=1", "arch.width_multiplier=0.1",
    "arch.depth_multiplier=0.1", "arch.head_channels=0", "arch.embedding_dim=16", "recipe.batch_size=8",
    "recipe.epochs=2", "run.progress=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `faces` of five people."""
    folder = tmp_path_factory.mktemp("teacher")
    drawn = load_faces(DataSpec(name="synthetic", resolution=32, people=5, images_per_person=5))
    for name, image in zip(drawn.names, drawn.images, strict=True):
        path = folder / "faces" / Path(name).parent.name / f"{Path(name).stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The folder with the "large" model as well: a network trained on labels, and exported as `big`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        # As deep as it comes, so that it tells colours apart.
        deep = [word for word in SMALL if not word.startswith("arch.depth_multiplier=")]
        assert run("train data=folder data.root=faces arch=ffem recipe=modern", *deep) == DONE
        assert run(f"export {find_trial('*')} --format onnx --dtype float32 --out big") == DONE
    return place


def find_trial(words: str) -> Path:
    (folder,) = Path("outputs/train").glob(words)
    return folder


def run(*words: str) -> int:
    return main([word for line in words for word in shlex.split(line)])


@pytest.mark.slow
def test_from_a_large_model_to_a_small_file(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    trial = find_trial("*")
    big = next(Path("big").glob("*.onnx"))

    as_ours = "teacher=onnx teacher.size=16"
    assert run(f"teach faces {as_ours} teacher.path={big} --out teacher.npz") == DONE
    assert "25 vectors of 16 numbers" in capsys.readouterr().out
    found = read_vectors(Path("teacher.npz"))
    assert len(found.names) == 25
    assert all(re.fullmatch(r"[^/]+/[^/]+\.png", name) for name in found.names)

    # The three ways to be taught by it: its vectors, itself, and the trial that it was made of.
    keys = []
    for teacher in (
        "vectors teacher.path=teacher.npz",
        f"onnx teacher.size=16 teacher.path={big}",
        f"ffem teacher.path={trial}",
        "ffem teacher.path=big",
    ):
        overrides = f"train data=folder data.root=faces recipe=distill teacher={teacher} hydra.run.dir=taught"
        assert run(overrides, *SMALL) == DONE
        record = read_records(Path("taught/records.jsonl"))[-1]
        assert record.status == "done"
        assert record.teacher["measured"]["accuracy_gallery"] >= 0
        keys.append(record.trial_key)
    assert keys[0] == keys[1] != keys[2]  # one teaching by two ways; the trial's own numbers differ by rounding

    # An album of people without names teaches along; nobody in it is tested.
    for index in range(12):
        colours = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        path = Path(f"faces_and_album/album/{index:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(path)
    shutil.copytree("faces", "faces_and_album", dirs_exist_ok=True)
    assert run(
        "train data=folder data.root=faces_and_album data.unlabelled=album protocol=open_set protocol.folds=2",
        f"recipe=distill teacher={as_ours.removeprefix('teacher=')} teacher.path={big} hydra.run.dir=strangers",
        *(word for word in SMALL if not word.startswith("protocol.")),
    ) == DONE  # fmt: skip
    (record,) = read_records(Path("strangers/records.jsonl"))
    assert (record.status, record.train_images + record.tested) == ("done", 25 + 12)

    assert run("export taught --format onnx --dtype float32 --out small") in (DONE, BAD_USAGE)
    capsys.readouterr()


def test_what_is_wrong_is_said_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    np.savez("few.npz", paths=["nobody/1.png"], vectors=np.ones((1, 4)))
    train = "train data=folder data.root=faces recipe=distill"
    for words, wanted in (
        (f"{train} teacher=vectors teacher.path=few.npz", "no vector for 25 of 25 images"),
        (f"{train} teacher=vectors teacher.path=gone.npz", "gone.npz cannot be read"),
        (train, "recipe=distill distils without a teacher; set teacher=vectors|onnx|ffem"),
        ("train data=folder data.root=faces teacher=vectors teacher.path=few.npz", "does not use teacher=vectors"),
        ("teach teacher=onnx teacher.path=big.onnx", "give one folder of people"),
        ("teach faces teacher=onnx teacher.path=gone.onnx --out other.npz", "gone.onnx cannot be read"),
        ("teach faces teacher=onnx teacher.path=big.onnx --out vectors.txt", "the name must end in .npz"),
    ):
        assert run(words, *([] if words.startswith("teach") else SMALL)) == BAD_USAGE, words
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert wanted in line


@pytest.mark.slow
def test_the_page_s_script_measures_view_2(
    trained: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    page = (repository / "docs" / "teacher.md").read_text(encoding="utf-8")
    (script,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in block]
    # People of one colour each: any network tells most of them apart.
    random = np.random.default_rng(0)
    for person, colour in enumerate(random.integers(0, 256, (12, 1, 1, 3))):
        for number in range(1, 7):
            path = Path(f"lfw/lfw-deepfunneled/p{person:02d}/p{person:02d}_{number:04d}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            noisy = colour + random.normal(scale=12, size=(32, 32, 3)) + random.normal(scale=12, size=3)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    rows = []
    for _ in range(10):
        a, b = random.permuted(np.tile(np.arange(12), (300, 1)), axis=1)[:, :2].T
        i, j = random.permuted(np.tile(np.arange(1, 7), (300, 1)), axis=1)[:, :2].T
        rows += [f"p{p:02d}\t{x}\t{y}" for p, x, y in zip(a, i, j, strict=True)]
        rows += [f"p{p:02d}\t{x}\tp{q:02d}\t{y}" for p, x, q, y in zip(a, i, b, j, strict=True)]
    Path("lfw/pairs.txt").write_text("\n".join(["10\t300", *rows]) + "\n")

    script += '\nnp.save("distances.npy", distance)\n'
    done = subprocess.run([sys.executable, "-c", script, "big", "lfw"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    spec = DataSpec(name="lfw", root="lfw", resolution=16, crop=1.0, min_images=1)
    faces = load_faces(spec)
    pairs = read_pairs(Path("lfw/pairs.txt"), faces.names)
    compute = load_exported(Path("big")).compute
    vectors = compute(faces.images) + compute(faces.images[:, :, ::-1])
    distances = compute_pair_distances(vectors[pairs.first], vectors[pairs.second])
    accuracy = compute_fold_hits(distances, pairs.same, pairs.fold, 0)[0].mean()
    # How good the network is depends on rounding, and so on the processor. Each pair's distance is the script's, which
    # adds the two vectors of an image as they are and not as unit vectors.
    assert np.corrcoef(np.load("distances.npy"), distances)[0, 1] > 0.99
    # Where two thresholds are right equally often on the other folds, rounding chooses: nine of the 600 pairs.
    assert float(done.stdout.removesuffix(" %\n")) == pytest.approx(100 * accuracy, abs=1.5)
