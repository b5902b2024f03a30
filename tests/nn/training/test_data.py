"""Data of runs: every format read, batches that follow from their place alone, and pickles that may run nothing."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iftplan.base.errors import InputError
from iftplan.nn.training.data import disk_datasets, opening
from iftplan.nn.training.data.batches import EvaluationBatches
from iftplan.nn.training.data.cifar import read_cifar
from iftplan.nn.training.data.digits import read_digits
from iftplan.nn.training.data.image_folder import labelled_names
from iftplan.nn.training.data.images import Images
from iftplan.nn.training.data.masked_tokens import MaskedWindows
from iftplan.nn.training.data.opening import kind_of, open_data
from iftplan.nn.training.data.samples import generator_of, order_of, train_batch
from iftplan.nn.training.data.tokens import IGNORED, TokenWindows, read_text_tokens
from iftplan.nn.training.measures.evaluation import loss_of
from iftplan.runs.settings import DataConfig


def silent(text: str) -> None:
    """Nobody listens."""


def images(count: int = 12, crop: int = 2, flip: bool = True) -> Images:
    pixels = torch.randint(0, 256, (count, 3, 6, 5), dtype=torch.uint8, generator=generator_of("images"))
    return Images(pixels, torch.arange(count), torch.zeros(3), torch.ones(3), crop, flip)


def windows(length: int = 101, context: int = 8) -> TokenWindows:
    return TokenWindows(np.arange(length, dtype=np.uint16), context)


@settings(max_examples=40, deadline=None)
@given(world=st.sampled_from([1, 2, 3, 4]), number=st.integers(0, 2), seed=st.integers(0, 5))
@pytest.mark.parametrize("samples", [images(), windows()], ids=["images", "windows"])
def test_the_shares_of_all_processes_are_the_batch_of_one(
    samples: Any, world: int, number: int, seed: int
) -> None:
    order = order_of(samples, seed, 1)
    place = (seed, 1, number)
    whole, targets = train_batch(samples, order, 4, place, 0, 1)
    for rank in range(world):
        mine, own = train_batch(samples, order, 4, place, rank, world)
        assert torch.equal(mine, whole[rank::world]) and torch.equal(own, targets[rank::world])


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own() -> None:
    orders = [order_of(images(), seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(12)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    assert torch.equal(order_of(images(), 0, 1), orders[1])


@settings(max_examples=30, deadline=None)
@given(
    top=st.floats(0, 0.999), left=st.floats(0, 0.999), mirror=st.floats(0, 0.999), index=st.integers(0, 11)
)
def test_crops_and_mirrors_are_those_of_a_loop(top: float, left: float, mirror: float, index: int) -> None:
    samples = images()
    draws = torch.tensor([[top, left, mirror]])
    (found,), _ = samples.batch(torch.tensor([index]), draws)
    picture = samples.pixels[index].numpy() / np.float32(255)
    padded = np.zeros((3, 10, 9), dtype=np.float32)
    padded[:, 2:8, 2:7] = picture
    row, column = int(draws[0, 0] * 5), int(draws[0, 1] * 5)
    expected = padded[:, row : row + 6, column : column + 5]
    expected = expected[:, :, ::-1] if float(draws[0, 2]) < 0.5 else expected
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("there", [True, False])
def test_digits_are_those_of_scikit_learn(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read from its file, without it; where the file is packed in some other way, by it."""
    from sklearn.datasets import load_digits

    if not there:
        monkeypatch.setattr(Path, "exists", lambda path: False)
    parts = read_digits(0.2)
    pixels, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    ours = sorted(zip(pixels.flatten(1).tolist(), labels.tolist(), strict=True))
    assert ours == sorted(zip(images.reshape(1797, 64).tolist(), found.target.tolist(), strict=True))


def test_evaluation_takes_images_as_they_are() -> None:
    found, labels = images().batch(torch.tensor([3, 1]), None)
    assert torch.equal((found * 255).round().byte(), images().pixels[[3, 1]])
    assert labels.tolist() == [3, 1]


@given(index=st.integers(0, 11), moved=st.floats(0, 0.999))
def test_windows_are_shifted_by_one_and_stay_inside(index: int, moved: float) -> None:
    tokens, following = windows().batch(torch.tensor([index]), torch.tensor([[moved]]))
    assert torch.equal(following, tokens + 1)
    assert 8 * index <= int(tokens[0, 0]) or index == 11
    assert int(following.max()) <= 100


@given(count=st.integers(1, 40), size=st.integers(1, 6), world=st.integers(1, 5))
def test_all_processes_evaluate_as_many_batches_and_together_each_sample_once(
    count: int, size: int, world: int
) -> None:
    shares = [EvaluationBatches(images(count), size, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    batches = [share(number) for share in shares for number in range(len(share))]
    assert all(0 < len(inputs) == len(labels) <= size for inputs, labels in batches)
    seen = [int(label) for _, labels in batches for label in labels if label != IGNORED]
    assert sorted(seen) == list(range(count))


def test_evaluated_windows_cover_the_text() -> None:
    samples = windows()
    tokens, following = samples.batch(torch.arange(len(samples)), None)
    assert following.flatten().tolist() == list(range(1, 97))
    assert tokens.flatten().tolist() == list(range(96))


def test_masked_tokens_are_bert_s() -> None:
    samples = MaskedWindows(TokenWindows(np.full(100_001, 7, dtype=np.uint16), 100), 1, 1000)
    order = torch.arange(len(samples))
    tokens, targets = samples.batch(order, samples.draws(len(samples), generator_of("test")))
    hidden = targets != IGNORED
    assert torch.equal(targets[hidden], torch.full_like(targets[hidden], 7))
    assert bool((tokens[~hidden] == 7).all())
    share = hidden.float().mean().item()
    masked, kept = ((tokens[hidden] == value).float().mean().item() for value in (1, 7))
    # 100 000 draws: six standard deviations of a share
    assert share == pytest.approx(0.15, abs=0.007)
    assert masked == pytest.approx(0.8 + 0.1 / 1000, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / 1000, abs=0.015)
    again, _ = samples.batch(order[:5], None)
    assert torch.equal(again, samples.batch(order[:5], None)[0]), "evaluation hides the same tokens each time"


# --- formats ------------------------------------------------------------------------------------------


def cifar_batch(labels: dict[bytes, list[int]], shade: int) -> bytes:
    count = len(next(iter(labels.values())))
    pixels = np.full((count, 3072), shade, dtype=np.uint8)
    pixels[:, 0] = 200  # the first red pixel
    return pickle.dumps({b"data": pixels, **labels}, protocol=4)


def test_cifar_10_in_python_format(tmp_path: Path) -> None:
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(cifar_batch({b"labels": [i, 9]}, i))
    (tmp_path / "test_batch").write_bytes(cifar_batch({b"labels": [3]}, 7))
    config = DataConfig("auto", str(tmp_path), crop=4, flip=True)
    assert kind_of(config) == "cifar"
    task = open_data(config, silent)
    assert (len(task.train), len(task.test), task.classes, task.metric) == (10, 1, 10, "accuracy")
    train, test, _ = read_cifar(tmp_path)
    assert train[1].tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert train[0].shape == (10, 3, 32, 32) and train[0][2, 0, 0, :2].tolist() == [200, 2]
    assert test[0][0, 1, 0, 0] == 7


def test_cifar_100_takes_the_fine_labels(tmp_path: Path) -> None:
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    for name in ("train", "test"):
        (place / name).write_bytes(cifar_batch({b"coarse_labels": [1, 2], b"fine_labels": [70, 80]}, 0))
    assert kind_of(DataConfig("auto", str(tmp_path))) == "cifar"
    train, _, classes = read_cifar(tmp_path)
    assert (train[1].tolist(), classes) == ([70, 80], 100)


class Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Command()), pickle.dumps({b"data": Command(), b"labels": [1]}), b"no pickle", b""],
    ids=["command", "command inside", "text", "nothing"],
)
def test_a_pickle_that_asks_for_anything_else_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not a CIFAR batch"):
        read_cifar(tmp_path)
    assert not (tmp_path / "ran").exists()


def folder_of_images(root: Path) -> Path:
    for part, count in (("train", 3), ("test", 2)):
        for label, shade in (("cat", 40), ("dog", 200)):
            (root / part / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (6, 6), (shade, i, 0)).save(root / part / label / f"{i}.png")
    return root


def test_folders_of_images(tmp_path: Path) -> None:
    config = DataConfig("auto", str(folder_of_images(tmp_path)))
    told: list[str] = []
    task = open_data(config, told.append)
    assert (len(task.train), len(task.test), task.classes) == (6, 4, 2)
    assert isinstance(task.train, Images) and task.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert task.train.pixels[:, 0, 0, 0].tolist() == [40, 40, 40, 200, 200, 200]
    assert task.train.pixels[:, 1, 0, 0].tolist() == [0, 1, 2] * 2
    assert any("decoding 6 images" in text for text in told)


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    Image.new("RGB", (8, 4)).save(tmp_path / "train/cat/odd.png")
    with pytest.raises(InputError, match=r"data\.size"):
        open_data(DataConfig("auto", str(tmp_path)), silent)
    task = open_data(DataConfig("auto", str(tmp_path), size=4), silent)
    assert isinstance(task.train, Images) and task.train.pixels.shape == (7, 3, 4, 4)


@pytest.mark.parametrize("spoilt", ["image", "class", "empty"])
def test_folders_that_cannot_be_read_say_why(tmp_path: Path, spoilt: str) -> None:
    folder_of_images(tmp_path)
    if spoilt == "image":
        (tmp_path / "train/cat/1.png").write_text("cannot be read as an image")
    elif spoilt == "class":
        (tmp_path / "test/cow").mkdir()
    else:
        for path in (tmp_path / "test").rglob("*.png"):
            path.unlink()
    expected = {
        "image": "1.png cannot be read as an image",
        "class": "the class 'cow'",
        "empty": "holds no images",
    }[spoilt]
    with pytest.raises(InputError, match=expected):
        open_data(DataConfig("auto", str(tmp_path)), silent)


def test_what_desktops_and_notebooks_hide_among_images_is_not_read(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / ".ipynb_checkpoints").mkdir()
        (tmp_path / part / "cat/._0.png").write_bytes(b"a resource fork")
    task = open_data(DataConfig("auto", str(tmp_path)), silent)
    assert (len(task.train), len(task.test), task.classes) == (6, 4, 2)


def test_text_as_bytes_and_as_characters(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("äbä " * 40)
    as_bytes = open_data(DataConfig("auto", str(path), context=4), silent)
    as_characters = open_data(DataConfig("auto", str(path), context=4, unit="characters"), silent)
    assert (as_bytes.metric, as_bytes.classes) == ("perplexity", 0xC3 + 1)
    assert as_characters.classes == 3
    tokens, _ = as_characters.train.batch(torch.tensor([0]), None)
    assert tokens.tolist() == [[2, 1, 2, 0]]


def test_hidden_files_are_no_text_of_a_folder(tmp_path: Path) -> None:
    """What an editor or a system keeps beside a text repeats it, and may come and go."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.txt").write_text("two", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    for hidden in (".ipynb_checkpoints/a-checkpoint.txt", "._a.txt", "parts/.b.txt"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_text("again", encoding="utf-8")
    assert bytes(read_text_tokens(tmp_path, "bytes", "/")) == b"one/two"


def test_files_of_tokens(tmp_path: Path) -> None:
    row = np.arange(300, dtype="<u2")
    row.tofile(tmp_path / "row.bin")
    np.save(tmp_path / "row.npy", row.astype(np.int64))
    for name in ("row.bin", "row.npy"):
        task = open_data(DataConfig("auto", str(tmp_path / name), context=10), silent)
        assert (task.classes, len(task.train), len(task.test)) == (300, 26, 2)
        _, following = task.test.batch(torch.tensor([0]), None)
        assert following[0, 0] == 271
    np.save(tmp_path / "square.npy", np.zeros((4, 4)))
    (tmp_path / "odd.bin").write_bytes(b"123")
    for name in ("square.npy", "odd.bin"):
        with pytest.raises(InputError, match="row"):
            open_data(DataConfig("auto", str(tmp_path / name), context=1), silent)
    with pytest.raises(InputError, match=r"data\.context"):
        open_data(DataConfig("auto", str(tmp_path / "row.bin"), context=200), silent)
    np.save(tmp_path / "row.npy", np.arange(-1, 99))
    with pytest.raises(InputError, match="the token -1"):
        open_data(DataConfig("auto", str(tmp_path / "row.npy"), context=10), silent)


def test_token_files_of_a_folder_are_one_row(tmp_path: Path) -> None:
    whole = np.arange(1000) % 251
    for name, part in (
        ("b.npy", whole[400:405]),
        ("a.bin", whole[:400].astype("<u2")),
        ("c.npy", whole[405:]),
    ):
        np.save(tmp_path / name, part) if name.endswith("npy") else part.tofile(tmp_path / name)
    np.save(tmp_path.parent / "whole.npy", whole)
    config = DataConfig("auto", str(tmp_path), context=7)
    assert kind_of(config) == "tokens"
    task, single = (
        open_data(config, silent),
        open_data(replace(config, path=str(tmp_path.parent / "whole.npy")), silent),
    )
    assert (task.classes, len(task.train), len(task.test)) == (251, len(single.train), len(single.test))
    for found, wanted in ((task.train, single.train), (task.test, single.test)):
        places = torch.arange(len(found))
        for moved in (None, found.draws(len(found), generator_of("moved"))):
            assert all(map(torch.equal, found.batch(places, moved), wanted.batch(places, moved)))
    assert task.files is not None and [*task.files.names] == ["a.bin", "b.npy", "c.npy"]
    masked = replace(config, objective="masked", mask_token=251)
    assert open_data(masked, silent).classes == 252
    with pytest.raises(InputError, match=r"data.mask_token is 250, which occurs"):
        open_data(replace(masked, mask_token=250), silent)


def test_digits_have_no_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.kind is 'digits', which needs none"):
        open_data(DataConfig(path=str(tmp_path)), silent)
    assert open_data(DataConfig(path="digits"), silent).classes == 10


def test_the_vocabulary_spares_looking_for_the_largest_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_LONG", 10)
    np.arange(300, dtype="<u2").tofile(tmp_path / "row.bin")
    told: list[str] = []
    for vocabulary, classes in ((0, 300), (400, 400)):
        config = DataConfig("auto", str(tmp_path / "row.bin"), context=10, vocabulary=vocabulary)
        assert open_data(config, told.append).classes == classes
    assert len(told) == 1 and "data.vocabulary" in told[0]


def test_documents_are_packed_with_what_is_put_between_them(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one two " * 20), ("b.txt", "three " * 20)):
        (tmp_path / name).write_text(text)
    plain = open_data(DataConfig("auto", str(tmp_path), context=4), silent)
    apart = open_data(DataConfig("auto", str(tmp_path), context=4, separator="\0"), silent)
    assert isinstance(plain.train, TokenWindows) and isinstance(apart.train, TokenWindows)
    assert plain.train.tokens[159:161].tolist() == [ord(" "), ord("t")]
    assert apart.train.tokens[159:162].tolist() == [ord(" "), 0, ord("t")]


def test_data_sets_saved_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: nobody can save one")
    images = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(4)]
    part = datasets.Dataset.from_dict(
        {"image": images, "label": [0, 1, 0, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "pictures"))
    task = open_data(DataConfig("auto", str(tmp_path / "pictures")), silent)
    assert isinstance(task.train, Images) and task.train.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    text = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["one two"] * 20})})
    text.save_to_disk(str(tmp_path / "texts"))
    assert open_data(DataConfig("auto", str(tmp_path / "texts"), context=4), silent).metric == "perplexity"


def test_a_token_of_the_text_hides_none(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a good book " * 50, encoding="utf-8")
    config = DataConfig("text", str(tmp_path / "book.txt"), context=8, objective="masked")
    with pytest.raises(
        InputError, match=r"data.mask_token is 103, which occurs in .*such as data.mask_token=112"
    ):
        open_data(config, silent)
    assert open_data(replace(config, mask_token=256), silent).classes == 257


def test_a_batch_in_which_nothing_is_hidden_has_no_loss() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = loss_of(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert float(loss) == 0 and logits.grad is not None and not logits.grad.any()


def test_a_part_without_labels_is_passed_over(tmp_path: Path) -> None:
    for place in ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "val/dog/2.png", "test/3.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / place)
    train, test, classes = labelled_names(tmp_path)
    assert (len(train), test, classes) == (2, [("val/cat/2.png", 0), ("val/dog/2.png", 1)], 2)


def test_labels_that_nobody_knows_are_passed_over_and_others_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Part:
        column_names = ("image", "label")

        def __init__(self, labels: list[int]) -> None:
            self.rows = [{"image": Image.new("RGB", (4, 4)), "label": label} for label in labels]

        def __len__(self) -> int:
            return len(self.rows)

        def __iter__(self) -> Any:
            return iter(self.rows)

        def __getitem__(self, key: int | str) -> Any:
            return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    parts = {"train": Part([0, 1, 1]), "test": Part([-1, -1]), "validation": Part([1, 0])}
    monkeypatch.setattr(disk_datasets, "load", lambda root: parts)
    found = disk_datasets.image_parts(tmp_path, 0, silent)
    assert found is not None and (found[1][1].tolist(), found[2]) == ([1, 0], 2)
    parts["validation"] = Part([0, 2])
    with pytest.raises(
        InputError, match=r"the test part of .* has labels from 0 to 2, and the classes of train are 0 to 1"
    ):
        disk_datasets.image_parts(tmp_path, 0, silent)
