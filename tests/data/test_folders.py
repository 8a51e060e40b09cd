"""The data of two folders: which files, which crops, the same whatever decodes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sincut.config.presets import folder_config
from sincut.config.training import FolderConfig
from sincut.data.folders import FolderFeed, Folders
from sincut.data.image_folder import (
    FolderImage,
    ImageFolder,
    both_folders,
    held_out_folders,
    read_folder,
)
from sincut.data.random_numbers import RandomNumbers
from sincut.data.samples import level_of, resized, shuffled, step_samples
from sincut.errors import SincutError

SIZES = [(40, 30), (30, 40), (64, 48), (200, 150), (33, 35)]  # width and height


def written(folder: Path, sizes: list[tuple[int, int]] = SIZES, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index, (width, height) in enumerate(sizes):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def cut_short(image: Path, damaged: Path) -> None:
    """A JPEG that is damaged behind its header."""
    Image.open(image).save(damaged, quality=95)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])


def config(**changes: Any) -> FolderConfig:
    settings = {"steps": 40, "load": 36, "falling_load": 32, "crop": 32, "batch": 3, **changes}
    return folder_config(**settings, device="cpu", precision="fp32")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    paths = written(tmp_path / "a"), written(tmp_path / "b", SIZES[:3], seed=1)
    return Folders(read_folder(paths[0]), read_folder(paths[1]))


def test_a_folder_is_walked_in_the_order_of_its_paths(tmp_path: Path) -> None:
    written(tmp_path / "a" / "sub")
    written(tmp_path / "b")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    (tmp_path / "a" / "text.txt").write_text("no image")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    found = read_folder(tmp_path / "a")
    names = [image.path.relative_to(tmp_path / "a").as_posix() for image in found.images]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {"sub", "link"}
    assert (found.images[0].width, found.images[0].height) == SIZES[0]
    assert found.sizes() == "30×30 to 200×150"


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[274] = 6
    (tmp_path / "a").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "a" / "turned.jpg", exif=tags)
    (image,) = read_folder(tmp_path / "a").images
    assert (image.width, image.height) == (10, 20)


def test_the_digest_knows_names_and_sizes(tmp_path: Path) -> None:
    written(tmp_path / "a")
    written(tmp_path / "b")
    one, other = (read_folder(tmp_path / name) for name in "ab")
    assert one.digest == other.digest
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "00.png")
    assert read_folder(tmp_path / "b").digest != one.digest


def test_both_folders(tmp_path: Path) -> None:
    for names in (("trainA", "trainB"), ("train_A", "train_B"), ("A", "B")):
        root = tmp_path / names[0]
        for name in names:
            (root / name).mkdir(parents=True)
        assert both_folders(root, None) == (root / names[0], root / names[1])
    with pytest.raises(SincutError) as caught:
        both_folders(tmp_path, None)
    assert str(caught.value) == (
        f"{tmp_path} does not hold two folders of images; give two folders, or one with trainA and "
        "trainB"
    )
    with pytest.raises(SincutError) as caught:
        both_folders(tmp_path, tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} is not a folder; give two images, or two folders of images"
    )


def test_held_out_folders_stand_beside(tmp_path: Path) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
    train = tmp_path / "trainA", tmp_path / "trainB"
    assert held_out_folders(*train) == (tmp_path / "testA", tmp_path / "testB")
    (tmp_path / "testB").rmdir()
    assert held_out_folders(*train) is None


def test_bad_files_are_named_or_left_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    (folder / "x.png").write_bytes(b"no image")
    cut_short(folder / "3.png", folder / "y.jpg")
    with pytest.raises(SincutError) as caught:
        read_folder(folder)
    message = str(caught.value)
    assert message.startswith(f"1 of the images in {folder} cannot be read: {folder / 'x.png'} ")
    assert message.endswith("; try --skip-bad to leave them out")
    found = read_folder(folder, skip_bad=True)
    assert [image.path.name for image in found.images] == [f"{i}.png" for i in range(5)]
    assert [path.name for path, _ in found.bad] == ["x.png", "y.jpg"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SincutError) as caught:
        read_folder(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} holds no image to train on; allowed endings: ")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("resize_and_crop", (36, 36)),
        ("scale_width_and_crop", (32, 36)),  # 27 rows are too few for a crop
        ("scale_shortside_and_crop", (36, 48)),
        ("crop", (30, 40)),
        ("shortside", (36, 48)),
    ],
)
def test_preprocessing_by_its_published_names(how: str, expected: tuple[int, int]) -> None:
    image = FolderImage(Path("x"), 40, 30)
    assert resized(image, 36, config(preprocess=how)) == expected


def test_a_large_image_is_only_enlarged_by_scale_shortside() -> None:
    image = FolderImage(Path("x"), 400, 300)
    assert resized(image, 36, config(preprocess="scale_shortside_and_crop")) == (300, 400)
    assert resized(image, 36, config(preprocess="shortside")) == (36, 48)
    assert level_of(image, config(preprocess="shortside")) == 2


def test_the_first_folder_comes_whole_in_new_orders() -> None:
    passes = [[shuffled(3, 7 * number + i, 7) for i in range(7)] for number in range(-2, 4)]
    assert all(sorted(each) == list(range(7)) for each in passes)
    assert len({tuple(each) for each in passes}) > 3
    assert shuffled(3, 5, 7) == shuffled(3, 5, 7)


def test_samples_are_a_function_of_seed_and_step(folders: Folders) -> None:
    settings = config(preprocess="shortside")
    seen: Counter[int] = Counter()
    for step in range(20):
        x, y = step_samples(folders.both, settings, step)
        assert (x, y) == step_samples(folders.both, settings, step)
        seen.update(sample.image for sample in x)
        for side, samples in enumerate((x, y)):
            for each in samples:
                image = folders.both[side].images[each.image]
                load = settings.load if step < 20 else settings.falling_load
                assert (each.rows, each.columns) == resized(image, load, settings)
                assert 0 <= each.top <= each.rows - settings.crop
                assert 0 <= each.left <= each.columns - settings.crop
    assert set(seen.values()) == {12}
    other = step_samples(folders.both, config(preprocess="shortside", seed=1), 0)
    assert other != step_samples(folders.both, settings, 0)


def test_falling_epochs_have_a_size_of_their_own(folders: Folders) -> None:
    settings = config(epochs=3, falling_epochs=1)
    sizes = [step_samples(folders.both, settings, step)[0][0].rows for step in (0, 29, 30, 39)]
    assert sizes == [36, 36, 32, 32]


def crops_of(feed: FolderFeed, step: int) -> list[torch.Tensor]:
    feed.prepare(step)
    return list(feed.draw(RandomNumbers(0, torch.tensor(step)))[:2])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_crops_do_not_depend_on_who_decodes(folders: Folders, workers: int) -> None:
    kept = folders.feed(config(image_memory="1GB"), warm=False)
    assert kept.steps.kept is not None
    again = Folders(*folders.both)
    loaded = again.feed(config(image_memory="1", workers=workers), warm=False)
    assert loaded.steps.kept is None
    for step in (0, 1, 2, 7, 8, 3):  # a run may begin anywhere
        for one, other in zip(crops_of(kept, step), crops_of(loaded, step), strict=True):
            assert torch.equal(one, other)
    assert loaded.waited > 0
    assert kept.waited == 0


def test_a_crop_is_what_pillow_makes(tmp_path: Path) -> None:
    """Its antialiased bilinear filter; the published code's is bicubic."""
    folder = written(tmp_path / "a", [(200, 150)])
    data = Folders(read_folder(folder), read_folder(folder))
    settings = config(batch=1, load=80, falling_load=80, crop=64)
    (sample,), _ = step_samples(data.both, settings, 5)
    whole = Image.open(folder / "0.png").resize((80, 80), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[sample.top : sample.top + 64, sample.left : sample.left + 64]
    expected = expected[:, ::-1] if sample.mirrored else expected
    x, _ = crops_of(data.feed(settings, warm=False), 5)
    found = ((x[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.abs(found - expected).max() < 1.01  # Pillow rounds between its two passes


def test_images_below_a_crop_are_refused(folders: Folders) -> None:
    with pytest.raises(SincutError) as caught:
        folders.feed(config(preprocess="crop"), warm=False)
    path = folders.content.path
    assert str(caught.value) == (
        f"2 of the images in {path} are smaller than a crop of 32 pixels, such as 0.png (40×30); "
        "try --set preprocess=shortside or --set crop=28"
    )


def test_bad_amounts_are_refused(folders: Folders) -> None:
    with pytest.raises(SincutError) as caught:
        folders.feed(config(image_memory="much"), warm=False)
    assert str(caught.value) == (
        "image_memory must be an amount such as 2GB or auto, got much; try --set image_memory=2GB"
    )


def test_an_image_that_is_damaged_behind_its_header_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    cut_short(folder / "3.png", folder / "y.jpg")
    data = Folders(read_folder(folder), read_folder(folder))
    with pytest.raises(SincutError, match=r"y\.jpg .*; --skip-bad leaves out what cannot be read"):
        data.feed(config(), warm=False)


def test_the_warm_start_aims_at_the_colours_of_the_style(tmp_path: Path) -> None:
    paths = []
    for name, colour in (("a", (200, 40, 40)), ("b", (40, 60, 220))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / name / "0.png")
        paths.append(read_folder(tmp_path / name))
    feed = Folders(*paths).feed(config(batch=1), warm=True)
    x, y = crops_of(feed, -1)
    assert (feed.recoloured(x) - y).abs().mean() < 0.05


def test_without_leaves_out() -> None:
    images = tuple(FolderImage(Path(f"{i}.png"), 8, 8) for i in range(3))
    folder = ImageFolder(Path(), images).without([(Path("1.png"), "bad")])
    assert [image.path.name for image in folder.images] == ["0.png", "2.png"]
