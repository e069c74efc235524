"""Wrong pyramids through the command: right objects in right places, or a named warning."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.geometry import Box
from tests.support import tiny_volume
from tests.support.fakes import mean_level, write_image
from tests.support.tiny_volume import Spheres

RUN = ["--diameter", "6um", "-q", "--no-report"]
CENTRES = [(z, y, x) for z in (12, 36) for y in (14, 38) for x in (14, 38, 62)]


def balls():
    """Twelve balls of 11 voxels, at 0.3 um: the network reads level 1, where they have 5.5."""
    axes = np.ogrid[:48, :52, :76]
    image = np.random.default_rng(0).normal(100, 5, (48, 52, 76))
    for centre in CENTRES:
        square = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
        image += 900 * (square <= 9.5**2)
    return image.clip(0).astype(np.uint16)


def write(folder, version="0.5", count=3, **more):
    pyramid = [balls()]
    for _ in range(count - 1):
        pyramid.append(mean_level(pyramid[-1], (2, 2, 2)))
    return Path(
        write_image(folder / "a.zarr", pyramid, version=version, scale=(0.3, 0.3, 0.3),
                    chunks=(16, 16, 16), **more)
    )  # fmt: skip


def found(image):
    """The centroids of the table, and the run record."""
    rows = tiny_volume.rows(image.parent / "a.anystar.csv")
    record = json.loads((image.parent / "a.anystar.run.json").read_text())
    return np.array([[float(row[f"centroid_{a}"]) for a in "zyx"] for row in rows]), record


def all_in_place(points):
    return len(points) == len(CENTRES) and all(
        np.linalg.norm(points - c, axis=1).min() < 3.5 for c in CENTRES
    )


def metadata(image):
    file = next(f for f in (image / "zarr.json", image / ".zattrs") if f.exists())
    document = json.loads(file.read_text())
    attributes = document.get("attributes", document)
    datasets = attributes.get("ome", attributes)["multiscales"][0]["datasets"]
    return datasets, lambda: file.write_text(json.dumps(document))


def rescale(image, factor):
    datasets, save = metadata(image)
    for k, dataset in enumerate(datasets):
        dataset["coordinateTransformations"][0]["scale"] = [0.3 * factor**k] * 3
    save()


def displace(image):
    datasets, save = metadata(image)
    for k, dataset in enumerate(datasets):
        shift = [2.5 * (2**k - 1)] * 3
        dataset["coordinateTransformations"].append({"type": "translation", "translation": shift})
    save()


def refill(image, change):
    array = zarr.open_array(str(image / "1"), mode="r+")
    array[...] = change(array[...])


def half(level):
    level[:, :, level.shape[2] // 2 :] = 0
    return level


KINDS = {
    "same scale": (lambda image: rescale(image, 1.0), "its scale contradicts its shape"),
    "inverted": (lambda image: rescale(image, 0.5), "its scale contradicts its shape"),
    "displaced": (displace, "its translation differs from that of level 0"),
    "missing": (lambda image: shutil.rmtree(image / "1"), "its array is missing"),
    "empty": (lambda image: refill(image, np.zeros_like), "it holds nothing"),
    "half-filled": (lambda image: refill(image, half), "it holds nothing"),
    "shifted": (lambda image: refill(image, lambda a: np.roll(a, 3, 2)), "level 1 (1) does not"),
    "another": (lambda image: refill(image, lambda a: a[::-1, :, ::-1] * 0 + 7 * (a[::-1] % 9)),
                "it shows something else"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "version"), [(kind, ("0.4", "0.5")[n % 2]) for n, kind in enumerate(KINDS)]
)
def test_objects_are_in_place_and_the_level_is_named(tmp_path, command, kind, version):
    image = write(tmp_path, version)
    spoil, said = KINDS[kind]
    spoil(image)
    done = command("segment", image, *RUN, "--fail-on-warning", factory=Spheres())
    assert done.exit_code == 3, done.stderr
    points, record = found(image)
    assert all_in_place(points)
    assert record["plan"]["level"] == 0
    (warning,) = [text for text in record["summary"]["warnings"] if said in text and " 1 " in text]
    assert said in " ".join(done.stderr.split())
    if kind != "missing":
        assert "the network reads level 0 instead of 1, 8 times as many voxels" in warning


def test_a_sound_pyramid_is_read_at_level_1_without_a_word(tmp_path, command):
    image = write(tmp_path)
    done = command("segment", image, *RUN, "--fail-on-warning", factory=Spheres())
    assert done.exit_code == 0, done.stderr
    points, record = found(image)
    assert all_in_place(points)
    assert record["plan"]["level"] == 1
    assert "unused_levels" not in record["plan"]
    assert record["summary"]["warnings"] == []


def test_level_0_alone_of_three_listed_is_enough(tmp_path, command):
    image = write(tmp_path)
    shutil.rmtree(image / "1")
    shutil.rmtree(image / "2")
    assert command("segment", image, *RUN, factory=Spheres()).exit_code == 0
    points, record = found(image)
    assert all_in_place(points)
    assert "only level 0 is left of 3 levels" in record["summary"]["warnings"][-1]
    assert read_image(f"{image}/labels/anystar").left_out == ()


def test_the_label_of_a_wrongly_scaled_pyramid_lies_on_level_0(tmp_path, command):
    image = write(tmp_path)
    rescale(image, 1.0)
    assert command("segment", image, *RUN, factory=Spheres()).exit_code == 0
    label = ImageReader(read_image(f"{image}/labels/anystar"))
    assert label.source.readable == (0, 1, 2)
    whole = [label.read_box(k, 0, 0, Box.of_shape(label.source.shape_zyx(k))) for k in range(3)]
    for k in (1, 2):
        step = [s / 0.3 for s in label.source.scale_um(k)]
        assert step == pytest.approx([2.0**k] * 3)
        offset = [t / 0.3 for t in label.source.translation_um(k)]
        for name in range(1, 13):
            fine, coarse = (np.argwhere(whole[n] == name).mean(axis=0) for n in (0, k))
            assert np.abs(coarse * step + offset - fine).max() < 0.5
    _, record = found(image)
    assert "level 1 of the label lies where its shape says" in record["summary"]["warnings"][0]


def test_a_forced_level_is_read_whatever_the_check_says(tmp_path, command):
    image = write(tmp_path)
    rescale(image, 1.0)
    done = command("segment", image, *RUN, "--level", "1", factory=Spheres())
    assert done.exit_code == 0, done.stderr
    points, record = found(image)
    assert all_in_place(points)
    assert record["plan"]["level"] == 1
    assert record["config"]["result"]["level"] == 1
    assert "It is read all the same, as --level asks for it" in record["summary"]["warnings"][0]


def test_a_forced_level_must_be_there_and_decides_the_fingerprint(tmp_path, command):
    image = write(tmp_path)
    done = command("segment", image, *RUN, "--level", "3", factory=Spheres())
    assert done.exit_code == 2
    assert "--level: got 3; the image has 3: 0 (0), 1 (1), 2 (2)" in " ".join(done.stderr.split())
    assert command("segment", image, *RUN, "--level=-1", factory=Spheres()).exit_code == 2
    assert command("segment", image, *RUN, "--level", "0", factory=Spheres()).exit_code == 0
    _, record = found(image)
    assert record["plan"]["level"] == 0
    done = command("segment", image, *RUN, factory=Spheres())
    assert done.exit_code == 2, "another result"


def test_an_unfinished_run_keeps_its_verdict_and_says_it_again(tmp_path, monkeypatch):
    from anystar_batch.pipeline import prepare
    from anystar_batch.stages import suppress

    image = write(tmp_path)
    refill(image, np.zeros_like)

    def fail(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(suppress, "suppress_run", fail)
        with pytest.raises(RuntimeError):
            tiny_volume.segment(image, factory=Spheres())
    monkeypatch.setattr(prepare, "check_levels", fail)
    summary = tiny_volume.segment(image, factory=Spheres())
    assert "level 1 (1) does not agree with level 0: it holds nothing" in summary.warnings[0]


def test_info_says_of_each_level_whether_it_agrees_and_how_that_was_told(tmp_path, command):
    image = write(tmp_path)
    refill(image, np.zeros_like)
    shutil.rmtree(image / "2")
    done = command("info", image)
    text = done.stdout
    assert "NOT used: it holds nothing at" in text, done.stderr
    assert "checked by its metadata; its voxels at" in text
    assert "level 2: left out: it is listed, but its array is missing" in text
    document = json.loads(command("info", image, "--json").stdout)
    assert [level["agrees"] for level in document["levels"]] == [True, False]
    assert document["levels_left_out"][0]["path"] == "2"
    text = command("info", write(tmp_path)).stdout
    assert "agrees with level 0; checked by its metadata and its voxels at" in text


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_wrong_with_level_0_is_a_warning(tmp_path, command, count):
    image = write(tmp_path, count=count)
    lost = sorted((image / "0/c").rglob("*"))
    for file in [f for f in lost if f.is_file()][::6]:
        file.unlink()
    assert command("segment", image, *RUN, factory=Spheres()).exit_code == 0
    _, record = found(image)
    assert any(
        "level 0: 10 of 60 chunks that were looked for are not stored" in text
        for text in record["summary"]["warnings"]
    )
