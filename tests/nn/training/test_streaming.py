"""Images that stay on the disk: regions and colours by hand, shards, and batches that are the same from any number of processes."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Generator, Tensor

from iftplan.base.errors import InputError, StaleError
from iftplan.nn.training.data import opening
from iftplan.nn.training.data.batches import (
    EvaluationBatches,
    TrainingBatches,
    batches,
    watching_workers,
    workers_for,
)
from iftplan.nn.training.data.data_files import RECORD, DataFiles, FileNames
from iftplan.nn.training.data.images import Images
from iftplan.nn.training.data.opening import kind_of, open_data
from iftplan.nn.training.data.samples import Batch, Task, generator_of
from iftplan.nn.training.data.streaming.augmentation import (
    COLOUR,
    DRAWS,
    LEFT,
    MIRROR,
    SCALE,
    TOP,
    Augmentation,
    area_box,
    centre_box,
    coloured,
    decoded,
    hole,
)
from iftplan.runs.settings import DataConfig

numbers = st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=DRAWS, max_size=DRAWS)


def silent(text: str) -> None:
    """Nobody listens."""


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose red grows to the right and whose green grows downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], 2).round().astype(np.uint8))


def draws(**places: float) -> list[float]:
    found = [0.5] * DRAWS
    for name, value in places.items():
        found[{"mirror": MIRROR, "left": LEFT, "top": TOP, "scale": SCALE}[name]] = value
    return found


def shade(part: str, number: int) -> tuple[int, int, int]:
    return (20 * number + 15, 100 if part == "train" else 200, 50)


def jpeg(part: str, number: int) -> bytes:
    """A picture of an own size and shade."""
    content = BytesIO()
    Image.new("RGB", (20 + number, 16 + 2 * number), shade(part, number)).save(content, "JPEG", quality=95)
    return content.getvalue()


def image_folder(root: Path, count: int = 5) -> Path:
    for part in ("train", "test"):
        for label, kind in enumerate(("cat", "dog")):
            (root / part / kind).mkdir(parents=True)
            for i in range(count):
                (root / part / kind / f"{i}.jpg").write_bytes(jpeg(part, label * count + i))
    return root


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def shards(root: Path, count: int = 5, suffix: str = "cls") -> Path:
    """The images of `image_folder` in two shards of each part, labels before and behind their images."""
    root.mkdir()
    for part in ("train", "test"):
        for label in (0, 1):
            with tarfile.open(root / f"{part}-{label:06d}.tar", "w") as shard:
                for i in range(count):
                    text = str(label) if suffix == "cls" else f'{{"label": {label}, "text": "a cat"}}'
                    files = [("jpg", jpeg(part, label * count + i)), (suffix, text.encode())]
                    for ending, content in files if i % 2 else reversed(files):
                        entry = tarfile.TarInfo(f"{'cat' if label == 0 else 'dog'}/{i}.{ending}")
                        entry.size = len(content)
                        shard.addfile(entry, BytesIO(content))
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "iftplan" / "shards"


# --- regions ------------------------------------------------------------------------------------------------


def test_the_centre_of_a_picture_is_that_of_its_scaled_copy() -> None:
    """500×375 scaled to 341⅓×256, of which 224×224 are taken: 328.125 pixels of the picture, in its middle."""
    left, top, right, bottom = centre_box(500, 375, 224, 256)
    assert (left, top, right, bottom) == (85.9375, 23.4375, 414.0625, 351.5625)
    assert centre_box(375, 500, 224, 256) == (top, left, bottom, right)
    assert centre_box(500, 375, 224, 0) == (0, 0, 500, 375)


def test_pixels_are_those_of_scaling_first_and_cropping_then() -> None:
    picture = ramp(120, 90)
    found = Augmentation(size=48, eval_shorter_side=60).pixels(picture, None)
    scaled = np.asarray(picture.resize((80, 60), Image.Resampling.BILINEAR))
    wanted = scaled[6:54, 16:64]
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("augmentation", "training", "wanted"),
    [
        (Augmentation(24, shorter_side=(32, 100)), True, (250, 188)),  # an eighth of 750 is below 100
        (Augmentation(24, shorter_side=(32, 100)), False, (125, 94)),
        (Augmentation(24, eval_shorter_side=32), False, (125, 94)),
        (Augmentation(24, random_resized_crop=(0.01, 1.0)), True, (500, 375)),  # a tenth of 375 is above 24
        (Augmentation(24), True, (125, 94)),
        (Augmentation(224, shorter_side=(256, 480)), True, (1000, 750)),
    ],
)
def test_large_pictures_are_decoded_no_smaller_than_they_are_used(
    augmentation: Augmentation, training: bool, wanted: tuple[int, int]
) -> None:
    content = BytesIO()
    ramp(1000, 750).save(content, "JPEG", quality=95)
    found = decoded(content.getvalue(), str, augmentation.least_side(training=training))
    assert found.size == wanted
    whole = decoded(content.getvalue(), str, 750)
    numbers = draws(scale=0.3, left=0.2) if training else None
    difference = augmentation.pixels(found, numbers).astype(int) - augmentation.pixels(whole, numbers)
    assert np.abs(difference).max() <= 8 and np.abs(difference).mean() < 1


@pytest.mark.parametrize(
    ("scale", "side"), [(0.0, 224 * 375 / 256), (0.999999, 224 * 375 / 480), (0.5, 224 * 375 / 368)]
)
def test_scale_jitter_draws_the_shorter_side_uniformly(scale: float, side: float) -> None:
    augmentation = Augmentation(size=224, shorter_side=(256, 480))
    left, top, right, bottom = augmentation.training_box(500, 375, draws(scale=scale, left=0.25, top=0.75))
    assert right - left == pytest.approx(side) and bottom - top == pytest.approx(side)
    assert left == pytest.approx(0.25 * (500 - side)) and top == pytest.approx(0.75 * (375 - side))


@settings(max_examples=200, deadline=None)
@given(numbers=numbers, width=st.integers(1, 700), height=st.integers(1, 700), low=st.floats(0.01, 1))
def test_crops_by_area_have_the_area_and_the_ratio_that_was_asked_for(
    numbers: Sequence[float], width: int, height: int, low: float
) -> None:
    left, top, right, bottom = area_box(width, height, (low, 1.0), numbers)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    # half a pixel of rounding on each side
    assert (w - 0.5) / (h + 0.5) <= 4 / 3 + 1e-6 and (w + 0.5) / (h - 0.5 if h > 0.5 else 0.5) >= 3 / 4 - 1e-6
    whole = width * height
    assert (w + 0.5) * (h + 0.5) >= low * whole * (1 - 1e-6) or min(width, height) * 4 / 3 <= max(
        width, height
    ) + 1


def test_a_long_picture_is_cropped_in_its_middle() -> None:
    """No ratio of 3/4 to 4/3 has nine tenths of the area of 400×100: the largest centre of 4/3 is 133×100."""
    assert area_box(400, 100, (0.9, 1.0), draws()) == (133, 0, 266, 100)
    assert area_box(100, 400, (0.9, 1.0), draws()) == (0, 133, 100, 266)


@settings(max_examples=50, deadline=None)
@given(numbers=numbers, width=st.integers(8, 90), height=st.integers(8, 90))
def test_every_box_lies_inside_the_picture(numbers: Sequence[float], width: int, height: int) -> None:
    augmentation = Augmentation(16, (16, 40), flip=True, crop=3, cutout=5, color_jitter=(0.4, 0.4, 0.4, 0.1))
    assert augmentation.pixels(ramp(width, height), numbers).shape == (16, 16, 3)
    assert Augmentation(16, eval_shorter_side=18).pixels(ramp(width, height), None).shape == (16, 16, 3)


def test_padding_mirrors_and_holes_by_hand() -> None:
    picture = ramp(32, 32)
    plain = np.asarray(picture)
    moved = Augmentation(32, crop=4, fill=(1, 2, 3)).pixels(picture, draws(top=0.0, left=0.999))
    assert np.array_equal(moved[4:, :28], plain[:28, 4:])
    assert (moved[:4] == (1, 2, 3)).all() and (moved[:, 28:] == (1, 2, 3)).all()
    for mirror, wanted in ((0.4, plain[:, ::-1]), (0.6, plain)):
        assert np.array_equal(Augmentation(32, flip=True).pixels(picture, draws(mirror=mirror)), wanted)
    cut = Augmentation(32, cutout=8, fill=(9, 9, 9)).pixels(picture, draws())
    inside = np.zeros((32, 32), dtype=bool)
    inside[12:20, 12:20] = True
    assert (cut[inside] == 9).all() and np.array_equal(cut[~inside], plain[~inside])
    assert [hole(draw, 32, 8) for draw in (0.0, 0.999)] == [slice(0, 4), slice(27, 32)]


@pytest.mark.parametrize(
    ("jitter", "drawn", "colour", "wanted"),
    [
        ((0.5, 0, 0, 0), 0.0, (100, 60, 20), (50, 30, 10)),
        ((0.5, 0, 0, 0), 0.75, (100, 60, 20), (125, 75, 25)),
        ((2.0, 0, 0, 0), 0.0, (100, 60, 20), (0, 0, 0)),  # factors from 0 to 3
        ((0, 0.5, 0, 0), 0.0, (100, 100, 100), (100, 100, 100)),  # contrast is about the mean
        ((0, 0, 1.0, 0), 0.0, (100, 60, 20), (67, 67, 67)),  # .299, .587 and .114
        ((0, 0, 0, 0.5), 0.8334, (255, 0, 0), (0, 255, 0)),  # a third of the circle
        ((0, 0, 0, 0.5), 0.3, (80, 80, 80), (80, 80, 80)),
    ],
)
def test_colours_by_hand(jitter: Any, drawn: float, colour: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    places = draws()
    places[COLOUR : COLOUR + 4] = [drawn] * 4
    found = np.asarray(coloured(Image.new("RGB", (4, 4), colour), jitter, places))
    assert np.abs(found.astype(int) - np.array(wanted)).max() <= 3


# --- batches ------------------------------------------------------------------------------------------------

AUGMENTED: dict[str, Any] = {
    "size": 12,
    "shorter_side": (12, 20),
    "flip": True,
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "cutout": 4,
    "workers": 0,
}


def opened(root: Path, **changes: Any) -> Task:
    return open_data(DataConfig("auto", str(root), **{**AUGMENTED, **changes}), silent)


def training(task: Task, rank: int = 0, world: int = 1) -> TrainingBatches:
    return TrainingBatches(task.train, 3, 4, len(task.train) // 4, rank, world)


def same(left: Sequence[Batch], right: Sequence[Batch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


@pytest.fixture(params=["folder", "tar", "tar of json"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    if request.param == "folder":
        return opened(image_folder(tmp_path / "data"))
    return opened(shards(tmp_path / "data", suffix="json" if "json" in request.param else "cls"))


def test_folders_and_shards_hold_the_same_images(task: Task) -> None:
    assert (len(task.train), len(task.test), task.classes, task.metric) == (10, 10, 2, "accuracy")
    pixels, labels = task.test.batch(torch.arange(10), None)
    assert (pixels.dtype, pixels.shape, labels.tolist()) == (torch.uint8, (10, 3, 12, 12), [0] * 5 + [1] * 5)
    wanted = torch.tensor([shade("test", i) for i in range(10)])
    assert (pixels[:, :, 5, 5].int() - wanted).abs().max() <= 3
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = task.normalised(pixels)[3, :, 5, 5]
    torch.testing.assert_close(normalised, (pixels[3, :, 5, 5] / 255 - mean) / std)


def test_batches_are_the_same_from_any_number_of_processes(task: Task) -> None:
    """From step 1 to 6, over three epochs; and the run's own random numbers are left as they were."""
    wanted = [training(task)(step) for step in range(1, 7)]
    before = torch.get_rng_state()
    for workers in (0, 1, 3):
        assert same(list(batches(training(task), range(1, 7), workers)), wanted)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(list(batches(training(task), range(4, 7), 2)), wanted[3:]), "a resume begins at its step"
    shares = [list(batches(training(task, rank, 2), range(1, 7), rank)) for rank in (0, 1)]
    for whole, *parts in zip(wanted, *shares, strict=True):
        assert same(parts, [(whole[0][rank::2], whole[1][rank::2]) for rank in (0, 1)])


def test_every_epoch_augments_otherwise(task: Task) -> None:
    first: dict[int, Tensor] = {}
    second: dict[int, Tensor] = {}
    for epoch, found in enumerate((first, second)):
        for number in range(2):
            make = training(task)
            pixels, labels = make(2 * epoch + number)
            assert make.order is not None
            for place, picture in zip(make.order[1][4 * number :].tolist(), pixels, strict=False):
                found[place] = picture
        assert len(labels) == 4
    shared = first.keys() & second.keys()
    assert len(shared) > 4 and not any(torch.equal(first[i], second[i]) for i in shared)


def test_evaluation_takes_every_sample_once(task: Task) -> None:
    for world in (1, 2, 3):
        parts = [EvaluationBatches(task.test, 4, rank, world) for rank in range(world)]
        counts = [sum(len(labels) for _, labels in map(part, range(len(part)))) for part in parts]
        assert counts == [len(range(rank, 10, world)) for rank in range(world)]
    whole = EvaluationBatches(task.test, 4, 0, 1)
    assert same(list(batches(whole, range(len(whole)), 2)), list(map(whole, range(3))))


def test_what_makes_batches_travels_to_other_processes(task: Task) -> None:
    """As spawned workers get it, on macOS and Windows."""
    sent = pickle.loads(pickle.dumps(training(task)))  # noqa: S301  (our own)
    assert same([sent(5)], [training(task)(5)])


def test_workers_are_as_many_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert [workers_for(asked) for asked in (0, 5, None)] == [0, 5, 8]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert workers_for(None) == 3


@dataclass(frozen=True)
class Dying:
    """Samples whose third batch ends the process that makes it."""

    def __call__(self, number: int) -> Batch:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1), torch.zeros(1)


def test_a_process_that_dies_is_told_of_with_what_to_do() -> None:
    with (
        pytest.raises(InputError, match=r"data died \(.*memory ran out.*fewer data\.workers"),
        watching_workers(),
    ):
        list(batches(Dying(), range(6), 1))


def test_other_errors_stay_what_they_are() -> None:
    def broken(number: int) -> Batch:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"), watching_workers():
        list(batches(broken, range(2), 1))


# --- what may be wrong with them ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    root = image_folder(tmp_path / "data")
    (root / "train/dog/3.jpg").write_bytes(jpeg("train", 8)[:300])
    with pytest.raises(InputError, match=r"train/dog/3\.jpg cannot be read as an image") as caught:
        list(batches(training(opened(root)), range(6), workers))
    assert "Traceback" not in str(caught.value)


def test_an_image_in_a_shard_is_named_with_its_shard(tmp_path: Path) -> None:
    root = shards(tmp_path / "data")
    path = root / "train-000001.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(jpeg("train", 7), b"\0" * len(jpeg("train", 7))))
    with pytest.raises(InputError, match=r"dog/2\.jpg in .*train-000001\.tar cannot be read"):
        list(batches(training(opened(root)), range(6), 0))


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_file_that_changes_while_a_run_goes_on_is_named(task: Task, what: str) -> None:
    assert task.files is not None
    for name in task.files.names:
        path = task.files.root / name
        if what == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(
        InputError, match="was changed while" if what == "changed" else "cannot be read any more"
    ):
        training(task)(0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: emptied(root / "train/cat"), "note: .*train has no images of 1 of"),
        (lambda root: shutil.rmtree(root / "test/dog"), "note: .*test has no images of 1 of the 2"),
        (lambda root: (root / "test/cow").mkdir(), "the class 'cow'"),
        (lambda root: emptied(root / "test"), "holds no images"),
        (lambda root: emptied(root / "train"), "holds no directories"),
        (lambda root: shutil.rmtree(root / "test"), "no directories train and test"),
    ],
)  # fmt: skip
def test_folders_say_what_they_lack(tmp_path: Path, spoil: Any, says: str) -> None:
    root = image_folder(tmp_path / "data")
    spoil(root)
    told: list[str] = []
    config = DataConfig("image-folder", str(root), **AUGMENTED)
    if says.startswith("note"):
        open_data(config, told.append)
        assert any(re.search(says, text) for text in told), told
    else:
        with pytest.raises(InputError, match=says):
            open_data(config, silent)


def one_shard(root: Path, **files: bytes) -> Path:
    root.mkdir(exist_ok=True)
    for part in ("train", "val"):
        with tarfile.open(root / f"{part}-0.tar", "w") as shard:
            for name, content in files.items():
                entry = tarfile.TarInfo(name.replace("_", "."))
                entry.size = len(content)
                shard.addfile(entry, BytesIO(content))
    return root


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a_jpg": b"x"}, r"no label for a; each NAME\.jpg needs"),
        ({"a_cls": b"1"}, "holds no images"),
        ({"a_jpg": b"x", "a_cls": b"cat"}, r"a\.cls in .* holds no class number"),
        ({"a_jpg": b"x", "a_cls": b"-1"}, "holds no class number"),
        ({"a_jpg": b"x", "a_json": b'{"name": 1}'}, 'a number under "label"'),
        ({"a_jpg": b"x", "a_json": b"{"}, 'a number under "label"'),
    ],
)
def test_shards_say_what_they_lack(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(InputError, match=says):
        opened(one_shard(tmp_path / "data", **files))


def test_shards_that_cannot_be_read_in_places_are_refused(tmp_path: Path) -> None:
    root = shards(tmp_path / "data")
    with tarfile.open(root / "train-000001.tar", "w:gz") as shard:
        shard.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(InputError, match=r"train-000001\.tar is compressed.*unpack it"):
        opened(root)
    (root / "train-000001.tar").write_bytes(b"no tar file" * 200)
    with pytest.raises(InputError, match="cannot be read as a tar file"):
        opened(root)
    (root / "train-000001.tar").unlink()
    with pytest.raises(InputError, match=r"test shards of .* hold the class 1, .* are 0 to 0"):
        opened(root)
    for path in root.glob("test*"):
        path.unlink()
    with pytest.raises(InputError, match="holds no shards for testing; their names"):
        opened(root)


def test_places_in_shards_are_kept_until_a_shard_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shards(tmp_path / "data")
    first = opened(root)
    told: list[str] = []
    config = DataConfig("auto", str(root), **AUGMENTED)
    again = open_data(config, told.append)
    assert told == [] and len(list(cache.iterdir())) == 2
    assert same([training(first)(0)], [training(again)(0)])
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    open_data(config, told.append)
    assert sum("listing" in text for text in told) == 2, "a damaged entry is made again"
    os.utime(root / "train-000000.tar", ns=(1, 1))
    told.clear()
    open_data(config, told.append)
    assert sum("listing" in text for text in told) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert len(opened(root).train) == 10, "no cache is no harm"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 0}, r"data\.size = 224"),
        ({"shorter_side": (8, 20)}, r"raise data\.shorter_side"),
        ({"shorter_side": (20, 16)}, "20 is above 16"),
        ({"eval_shorter_side": 8}, r"raise data\.eval_shorter_side"),
        ({"random_resized_crop": (0.1, 1.0)}, "use one of them"),
        ({"shorter_side": None, "random_resized_crop": (1.0, 0.1)}, "1.0 is above 0.1"),
        ({"mean": (0.5,)}, r"data\.mean has 1 values, but the images have 3 channels"),
    ],
)
def test_settings_that_cannot_be_together_are_refused(tmp_path: Path, changes: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        opened(image_folder(tmp_path / "data"), **changes)


def test_images_in_memory_take_what_they_can(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    for key in ("shorter_side", "random_resized_crop", "color_jitter"):
        asked: dict[str, Any] = {key: AUGMENTED.get(key, (0.1, 1.0))}
        with pytest.raises(InputError, match=rf"data\.{key} is for images that are read during training"):
            open_data(DataConfig("images", str(root), size=12, **asked), silent)
    task = open_data(
        DataConfig("images", str(root), size=12, mean=(0.0,) * 3, std=(1.0,) * 3, cutout=3), silent
    )
    assert isinstance(task.train, Images) and task.train.cutout == 3 and task.train.std.tolist() == [1, 1, 1]


def test_the_kind_follows_from_what_is_asked_and_from_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_folder(tmp_path / "data")
    assert kind_of(DataConfig("auto", str(root), size=12)) == "images"
    assert kind_of(DataConfig("auto", str(root), size=12, random_resized_crop=(0.1, 1.0))) == "image-folder"
    monkeypatch.setattr(opening, "_IN_MEMORY", 20 * 12 * 12 * 3 - 1)
    assert kind_of(DataConfig("auto", str(root), size=12)) == "image-folder"
    assert kind_of(DataConfig("auto", str(root), size=11)) == "images"
    assert kind_of(DataConfig("auto", str(shards(tmp_path / "shards")))) == "tar"
    folders = tmp_path / "folders"
    for part in ("train", "val"):
        (folders / part).mkdir(parents=True)
        shutil.copy(tmp_path / "shards" / "train-000000.tar", folders / part / "0.tar")
    assert kind_of(DataConfig("auto", str(folders))) == "tar"
    assert len(opened(folders).train) == 5
    (root / "images.tar.gz").write_bytes(b"where the images came from")
    assert kind_of(DataConfig("auto", str(root), size=11)) == "images"


# --- changed data ---------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    """A data set, and the directory of a run that remembers it."""
    root, run = image_folder(tmp_path / "data"), tmp_path / "run"
    run.mkdir()
    files_of(root).write(run)
    return root, run


def files_of(root: Path) -> DataFiles:
    found = opened(root).files
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: (root / "train/cat/1.jpg").unlink(), "missing: train/cat/1.jpg"),
        (lambda root: shutil.copy(root / "train/cat/1.jpg", root / "train/cat/9.jpg"), "new: train/cat/9.jpg"),
        (lambda root: (root / "test/dog/0.jpg").write_bytes(b"1"), r"another size: test/dog/0.jpg \(\d+ bytes before, 1 now"),
        (lambda root: os.utime(root / "test/dog/0.jpg", ns=(1, 1)), "modified: test/dog/0.jpg"),
        (lambda root: emptied(root / "train/cat"), "cat/2.jpg and 2 more"),
    ],
)  # fmt: skip
def test_changed_data_are_named(recorded: tuple[Path, Path], change: Any, says: str) -> None:
    root, run = recorded
    files_of(root).check(run)
    change(root)
    with pytest.raises(StaleError, match=says):
        files_of(root).check(run)


def test_data_that_were_copied_elsewhere_may_have_new_times(recorded: tuple[Path, Path]) -> None:
    root, run = recorded
    moved = root.with_name("moved")
    shutil.copytree(root, moved, copy_function=shutil.copyfile)
    files_of(moved).check(run)
    (moved / "train/cat/0.jpg").write_bytes(b"1")
    with pytest.raises(StaleError, match="another size"):
        files_of(moved).check(run)


def test_a_damaged_record_is_told_of(recorded: tuple[Path, Path]) -> None:
    root, run = recorded
    (run / RECORD).write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        files_of(root).check(run)
    (run / RECORD).unlink()
    files_of(root).check(run)


@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1), max_size=6
    )
)
def test_names_are_kept_as_they_are(names: list[str]) -> None:
    kept = FileNames([*names, "\udcff"])
    assert [*kept] == [*names, "\udcff"] and kept[-1] == "\udcff" and kept[1:] == [*names, "\udcff"][1:]


def test_odd_names_are_recorded(tmp_path: Path) -> None:
    for name in ("two words.jpg", "a\nline.jpg", "ä\\n.jpg", os.fsdecode(b"\xff.jpg")):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "run").mkdir()
    files = DataFiles.at(tmp_path, "*.jpg")
    files.write(tmp_path / "run")
    files.check(tmp_path / "run")
    (tmp_path / "a\nline.jpg").unlink()
    with pytest.raises(StaleError, match=r"missing: a\nline.jpg"):
        DataFiles.at(tmp_path, "*.jpg").check(tmp_path / "run")


# --- cutout in memory -------------------------------------------------------------------------------------------


@given(row=st.floats(0, 0.999), column=st.floats(0, 0.999), side=st.integers(1, 9))
def test_holes_of_images_in_memory_are_those_of_streamed_ones(row: float, column: float, side: int) -> None:
    pixels = torch.full((1, 3, 6, 5), 255, dtype=torch.uint8)
    samples = Images(pixels, torch.zeros(1), torch.zeros(3), torch.ones(3), cutout=side)
    numbers = torch.tensor([[0.5, 0.5, 0.5, row, column]])
    (found,), _ = samples.batch(torch.tensor([0]), numbers)
    wanted = torch.ones(3, 6, 5)
    wanted[:, hole(float(numbers[0, 3]), 6, side), hole(float(numbers[0, 4]), 5, side)] = 0
    assert torch.equal(found, wanted)


def test_without_holes_the_random_numbers_are_those_of_older_runs() -> None:
    samples = Images(torch.zeros(1, 3, 4, 4), torch.zeros(1), torch.zeros(3), torch.ones(3), 2, True)
    drawn: Tensor = samples.draws(7, generator_of("it"))
    assert torch.equal(
        drawn, torch.rand(7, 3, generator=Generator().manual_seed(generator_of("it").initial_seed()))
    )
