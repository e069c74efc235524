"""A zipped image gives what its folder gives; results lie beside it; what is wrong is said."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import images as archive_images
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.storage import remote, zip_index
from anystar_batch.errors import BlockError, DataError
from anystar_batch.geometry import Box
from anystar_batch.pipeline.part import segment_part
from anystar_batch.report.viewer.layers import scene
from tests.pipeline.test_plate_table import make_plate
from tests.pipeline.test_sweep import age, outcomes, statuses
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor
from tests.support.servers import memory_store, web_server
from tests.support.zips import change_byte, data_of, pack

SIZE = ["--diameter", "5um", "--tile", "64"]
KINDS = {
    "sharded": {"chunks": (10, 20, 44), "shards": (20, 40, 44)},
    "old": {"chunks": (20, 40, 24), "version": "0.4"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images in folders, with their results; nobody writes into them."""
    folder = tmp_path_factory.mktemp("images")
    for name, more in KINDS.items():
        tiny_volume.small_image(folder / name / "e.ome.zarr", **more)
        tiny_volume.segment(folder / name / "e.ome.zarr", output=folder / name / "out", tile=64)
    return folder


def result(folder, label="e.anystar"):
    """Label and table, byte by byte, but for the image that the label names."""
    files = tiny_volume.contents(Path(folder, f"{label}.ome.zarr"))
    documents = [name for name in ("zarr.json", ".zattrs") if name in files]
    for name in documents:
        document = json.loads(files[name])
        holder = document["attributes"]["ome"] if name == "zarr.json" else document
        holder["image-label"].pop("source")
        files[name] = document
    return files, Path(folder, f"{label}.csv").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_zipped_image_gives_the_result_of_its_folder(images, tmp_path, command, kind):
    folder = images / kind / "e.ome.zarr"
    stored = pack(folder, tmp_path / "stored/e.ozx")
    deflated = pack(
        folder, tmp_path / "deflated/e.ome.zarr.zip", how=zipfile.ZIP_DEFLATED, top="e.ome.zarr/"
    )
    for image in (stored, deflated):
        before = image.read_bytes()
        done = command("segment", image, *SIZE)
        assert done.exit_code == 0, done.stderr
        beside = image.parent / "e.anystar.ome.zarr"
        assert f"is in a zip file, which takes no label: it goes to {beside}" in " ".join(
            done.stderr.split()
        )
        assert result(image.parent) == result(images / kind / "out")
        assert image.read_bytes() == before
        done = command("segment", image, *SIZE, "--json")
        assert json.loads(done.stdout)["status"] == "nothing to do"
        assert not list(image.parent.glob("*.work")) + list(image.parent.glob("*.lock"))


def test_a_zipped_plate_gives_the_table_of_its_folder(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr", {"B/03": ["0"], "C/04": ["0"]})
    zipped = pack(plate, tmp_path / "zip/scan.ozx")
    for path in (plate, zipped):
        done = command("segment", path, *SIZE, "--no-report")
        assert done.exit_code == 0, done.stderr
    name = "scan.anystar.csv"
    assert (zipped.parent / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (zipped.parent / "scan.B.03.0.anystar.ome.zarr").is_dir()
    done = command("info", zipped)
    assert "2 wells, 2 fields" in done.stdout
    assert done.stdout.count("label anystar, ") == 2


def test_a_run_that_failed_is_continued(images, tmp_path):
    image = pack(images / "sharded/e.ome.zarr", tmp_path / "e.ozx")

    class Failing:
        """Fails at the third tile."""

        tiles = 0

        def __call__(self, *_):
            return self

        def find(self, *arguments):
            self.tiles += 1
            if self.tiles == 3:
                raise RuntimeError("out of order")
            return TruthPredictor(tiny_volume.truth()).find(*arguments)

    with pytest.raises(BlockError):
        tiny_volume.segment(image, factory=Failing())
    shutil.copy2(image, tmp_path / "copy")
    image.unlink()
    (tmp_path / "copy").rename(image)  # the same bytes in another file
    counting = Failing()
    counting.tiles = 10
    tiny_volume.segment(image, factory=counting)
    tiny_volume.segment(images / "sharded/e.ome.zarr", output=tmp_path / "whole")
    assert counting.tiles < 10 + 6
    assert result(tmp_path) == result(tmp_path / "whole")


def test_an_image_that_changed_is_not_mixed_with_what_it_was(images, tmp_path, command):
    image = pack(images / "sharded/e.ome.zarr", tmp_path / "e.ozx")

    class Rewriting:
        """Has the image written anew, with other voxels, while it is read."""

        def __call__(self, *_):
            return self

        def find(self, *arguments):
            if not (tmp_path / "other").exists():
                tiny_volume.small_image(tmp_path / "other", dtype=np.uint16, **KINDS["sharded"])
                zarr.open_array(str(tmp_path / "other/0"), mode="r+")[:4] = 7
                pack(tmp_path / "other", image)
            return TruthPredictor(tiny_volume.truth()).find(*arguments)

    done = command("segment", image, *SIZE, factory=Rewriting())
    assert done.exit_code == 2
    assert "has changed since it was read" in done.stderr
    assert not (tmp_path / "e.anystar.ome.zarr").exists()


def test_every_command_finds_the_label_beside(images, tmp_path, command):
    image = pack(images / "sharded/e.ome.zarr", tmp_path / "e.ozx")
    done = command("segment", image, *SIZE, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["label"] == f"{tmp_path}/e.anystar.ome.zarr"
    assert [path.name for path in tmp_path.iterdir()] == ["e.ozx"]
    for number in (1, 2):
        asked = tiny_volume.config(image, tile=64, run={"part": (number, 2)})
        truth = TruthPredictor(tiny_volume.truth())
        segment_part(asked, factory=truth, model=tiny_volume.model())
    done = command("segment", image, *SIZE, "--keep-candidates")
    assert done.exit_code == 0, done.stderr
    done = command("info", image, "--json")
    (label,) = json.loads(done.stdout)["labels"]
    assert (label["name"], label["is_current"]) == ("anystar", True)
    truth = images / "sharded/out/e.anystar.ome.zarr"
    done = command("evaluate", image, truth, "--json")
    assert json.loads(done.stdout)["scores"][0]["f1"] == 1.0
    assert "now" in command("tune", image).stdout
    done = command("review", image, "--page", tmp_path / "page.html")
    assert done.exit_code == 0, done.stderr
    for path in (image, tmp_path / "e.anystar.ome.zarr"):
        assert [layer.name for layer in scene(str(path)).layers] == ["e", "anystar"]
    done = command("segment", image, *SIZE, "--label", "within", "--inside", "anystar")
    assert done.exit_code == 0, done.stderr
    done = command("segment", image, *SIZE, "--prob-thresh", "0.8")
    assert done.exit_code == 2
    assert "e.anystar.ome.zarr exists already, made by another" in " ".join(done.stderr.split())
    done = command("segment", image, *SIZE, "--label", "x", "--table")
    assert done.exit_code == 2
    assert "a zip file takes none; drop --table" in " ".join(done.stderr.split())
    done = command("segment", image, *SIZE, "--prob-thresh", "0.8", "--overwrite")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_a_pattern_takes_for_an_image_is_told(images, kind, command):
    label = images / kind / "out" / "e.anystar.ome.zarr"
    done = command("segment", label, *SIZE, "--dry-run", "--json")
    (text,) = (t for t in json.loads(done.stdout)["warnings"] if "is a label image" in t)
    assert text.endswith(f"its image is {images / kind / 'e.ome.zarr'}")
    image = command("segment", images / kind / "e.ome.zarr", *SIZE, "--dry-run", "--json")
    assert "is a label image" not in image.stdout


def test_labels_within_and_beside_have_names_of_their_own(images, tmp_path, command):
    shutil.copytree(images / "sharded/e.ome.zarr", tmp_path / "e")
    tiny_volume.segment(tmp_path / "e", tile=64)
    image = pack(tmp_path / "e", tmp_path / "zip/e.ozx")
    tiny_volume.segment(image, tile=64)
    done = command("info", image, "--json")
    assert [one["name"] for one in json.loads(done.stdout)["labels"]] == [
        "labels/anystar",
        "anystar",
    ]
    done = command("evaluate", f"{image}/labels/anystar", f"{image.parent}/e.anystar.ome.zarr")
    assert done.exit_code == 0, done.stderr


def test_a_sweep_finds_zipped_images(images, tmp_path, command):
    folder = images / "sharded/e.ome.zarr"
    pack(folder, tmp_path / "a.ozx")
    pack(folder, tmp_path / "b.ome.zarr.zip", top="b.ome.zarr/")
    shutil.copytree(folder, tmp_path / "c.ome.zarr")
    pack(folder, tmp_path / "c.ome.zarr.zip")
    (tmp_path / "d.ozx").write_bytes(pack(folder, tmp_path / "whole").read_bytes()[:-100])
    shutil.copy(tmp_path / "whole", tmp_path / "photos.zip")
    age(tmp_path)
    (tmp_path / "copying.ozx").write_bytes(b"PK")
    pack(folder, tmp_path / "young.ozx")
    done = command("sweep", tmp_path, *SIZE, "--json", "--no-report")
    assert statuses(done) == {
        "a.ozx": "done",
        "b.ome.zarr.zip": "done",
        "c.ome.zarr": "done",
        "c.ome.zarr.zip": "not for this tool",
        "d.ozx": "failed",
        "copying.ozx": "being written",
        "young.ozx": "being written",
    }
    found, _ = outcomes(done)
    assert "c.ome.zarr is taken" in found["c.ome.zarr.zip"][1]
    assert "not whole" in found["d.ozx"][1]
    assert (tmp_path / "b.anystar.ome.zarr").is_dir()
    done = command("sweep", tmp_path, *SIZE, "--json", "--no-report")
    assert [statuses(done)[name] for name in ("a.ozx", "b.ome.zarr.zip")] == ["current"] * 2
    done = command("sweep", tmp_path, *SIZE, "--json", "--pattern", "*.zip", "--dry-run")
    assert set(statuses(done)) == {"b.ome.zarr.zip", "c.ome.zarr.zip", "photos.zip"}


def empty(folder, _):
    (folder / "a.ozx").write_bytes(b"")
    return 2, "no zip file, or one that is not whole", "copy it again"


def cut(folder, image):
    (folder / "a.ozx").write_bytes(pack(image, folder / "whole").read_bytes()[:-60])
    return 2, "no zip file, or one that is not whole", "copy it again"


def other(folder, _):
    with zipfile.ZipFile(folder / "a.ozx", "w") as file:
        file.writestr("photos/1.jpg", b"")
    return 2, "no zarr.json, .zgroup, .zattrs or .zarray at its top", "expected a zipped OME-Zarr"


def several(folder, image):
    pack(image, folder / "a.ozx", top="e.ome.zarr/")
    with zipfile.ZipFile(folder / "a.ozx", "a") as file:
        file.writestr("f.ome.zarr/zarr.json", "{}")
    return 2, "a zip file of several Zarrs", "give one, e.g.", "a.ozx/e.ome.zarr"


def inner(folder, image):
    pack(image, folder / "e.ozx")
    with zipfile.ZipFile(folder / "a.ozx", "w") as file:
        file.write(folder / "e.ozx", "e.ozx")
    return 2, "no zarr.json, .zgroup, .zattrs or .zarray at its top"


def squeezed(folder, image):
    pack(image, folder / "a.ozx", how=zipfile.ZIP_LZMA)
    return 2, "zarr.json: compressed by method 14", "zip -0"


def damaged_metadata(folder, image):
    pack(image, folder / "a.ozx")
    change_byte(folder / "a.ozx", data_of(folder / "a.ozx", "zarr.json") + 50)
    return 2, "zarr.json: ", "the zip file is damaged, or has changed", "copy it again"


def damaged_chunk(folder, image):
    pack(image, folder / "a.ozx", how=zipfile.ZIP_DEFLATED)
    change_byte(folder / "a.ozx", data_of(folder / "a.ozx", "0/c/0/0/0") + 500)
    return 1, "0/c/0/0/0: ", "copy it again"


@pytest.mark.parametrize(
    "make",
    [empty, cut, other, several, inner, squeezed, damaged_metadata, damaged_chunk],
    ids=lambda make: make.__name__,
)
def test_what_is_wrong_with_a_zip_file_is_one_message(images, tmp_path, command, make):
    code, *words = make(tmp_path, images / "sharded/e.ome.zarr")
    for more in ([], ["--dry-run"]):
        done = command("segment", tmp_path / "a.ozx", *SIZE, *more)
        said = " ".join(done.stderr.split())
        assert done.exit_code == code, said
        for word in ["a.ozx", *words]:
            assert word in said
        assert "Traceback" not in said
    assert not list(tmp_path.glob("*.csv")) + list(tmp_path.glob("*.ome.zarr"))


def test_one_of_several_images_in_a_zip_file(images, tmp_path, command):
    image = images / "sharded/e.ome.zarr"
    several(tmp_path, image)
    done = command("segment", tmp_path / "a.ozx/e.ome.zarr", *SIZE)
    assert done.exit_code == 0, done.stderr
    assert result(tmp_path, "a.e.ome.zarr.anystar") == result(images / "sharded/out")


@pytest.fixture
def web(images, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    image = pack(images / "sharded/e.ome.zarr", tmp_path / "web/e.ozx")
    with zipfile.ZipFile(image, "a") as file:
        file.writestr("beside", bytes(10**6))
    with web_server(tmp_path / "web") as server:
        yield server


def asked_of(web, name):
    """The ranges (first, last) of a file that a server was asked for; None is all of it."""
    ranges = [part for method, path, part in web.asked if (method, path) == ("GET", f"/{name}")]
    return [part and tuple(map(int, part.removeprefix("bytes=").split("-"))) for part in ranges]


def test_a_web_server_is_asked_for_parts_alone(images, web, tmp_path, command):
    size = (tmp_path / "web/e.ozx").stat().st_size
    done = command("segment", f"{web.url}/e.ozx", *SIZE, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert result(tmp_path / "out") == result(images / "sharded/out")
    ranges = asked_of(web, "e.ozx")
    assert None not in ranges
    assert ranges.count((size - zip_index.TAIL, size - 1)) == 1  # the directory, once a process
    assert sum(last + 1 - first for first, last in ranges) < size / 4
    assert not [path for _, path, _ in web.asked if path.startswith("/e.ozx/")]


def test_what_a_zip_file_holds_is_known_without_asking(images, web, monkeypatch):
    monkeypatch.setattr(archive_images, "MOST_ASKED", 0)  # a server is asked chunk by chunk
    stored = ImageReader(read_image(f"{images}/sharded/e.ome.zarr")).existing_chunks(0, 0, 0)
    assert [*ImageReader(read_image(f"{web.url}/e.ozx")).existing_chunks(0, 0, 0)] == [*stored]


def test_results_of_a_zip_file_on_a_web_server_go_elsewhere(web, tmp_path, command):
    done = command("segment", f"{web.url}/e.ozx", *SIZE)
    assert done.exit_code == 2
    assert "a web server takes no results; give --output DIR" in " ".join(done.stderr.split())
    done = command("segment", f"{web.url}/none.zip", *SIZE, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "no Zarr there" in done.stderr


def test_a_server_that_sends_whole_files_is_told_of(web, tmp_path, command):
    web.knows_ranges = False
    done = command("segment", f"{web.url}/e.ozx", *SIZE, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "whole files where parts are asked for (byte ranges)" in " ".join(done.stderr.split())


def test_an_object_that_is_replaced_is_told(images, tmp_path):
    """What was read before is of another object, even where its bytes are the same."""
    image = pack(images / "sharded/e.ome.zarr", tmp_path / "e.ozx")
    with memory_store() as store:
        store.pipe_file("s3://b/e.ozx", image.read_bytes())
        reader = ImageReader(read_image("s3://b/e.ozx"))
        whole = Box.of_shape(tiny_volume.SHAPE)
        values, before = reader.read_box(0, 0, 0, whole), reader.identities(0, 0, 0, whole)
        assert reader.identities(0, 0, 0, whole) == before
        deflated = pack(images / "sharded/e.ome.zarr", tmp_path / "d.ozx", how=zipfile.ZIP_DEFLATED)
        store.pipe_file("s3://b/e.ozx", deflated.read_bytes())
        with pytest.raises(DataError, match="the object has changed"):
            reader.read_box(0, 0, 0, whole)
        assert reader.identities(0, 0, 0, whole) != before
        assert (reader.read_box(0, 0, 0, whole) == values).all()
    remote.known_status.cache_clear()
