"""Object stores and web servers: a real S3 store and a real web server, on loopback."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import zarr

from anystar_batch.archive import label_copy
from anystar_batch.archive.storage import remote
from anystar_batch.geometry import Box
from anystar_batch.report.viewer.layers import scene
from tests.pipeline.test_plate_table import make_plate
from tests.pipeline.test_review import answer
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.servers import close_clients, download, objects, upload, web_server
from tests.support.zips import pack

MANY_TILES = ["--diameter", "5um"]
SIZE = [*MANY_TILES, "--tile", "64"]
"""One tile: few requests."""


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Images on disk, and their local result; nobody writes into it."""
    folder = tmp_path_factory.mktemp("local")
    for name, more in KINDS.items():
        tiny_volume.small_image(folder / f"{name}.ome.zarr", **more)
    tiny_volume.segment(folder / "plain.ome.zarr", output=folder / "out", tile=64)
    return folder


KINDS = {
    "plain": {"chunks": (20, 40, 44)},
    "sharded": {"chunks": (10, 20, 44), "shards": (20, 40, 44)},
    "old": {"chunks": (20, 40, 24), "version": "0.4"},
}


def label_values(path, name="0"):
    import zarr

    return zarr.open_array(f"{path}/{name}", mode="r")[...]


@pytest.mark.parametrize("kind", ["plain", "sharded"])
def test_an_image_in_a_bucket_gives_the_local_result(bucket, local, tmp_path, command, kind):
    image = upload(local / f"{kind}.ome.zarr", f"{bucket}/read/{kind}.ome.zarr")
    before = objects(image)
    done = command("segment", image, *SIZE, "--output", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    stem = f"{kind}.anystar"
    table = (local / "out/plain.anystar.csv").read_bytes()
    assert (tmp_path / f"{stem}.csv").read_bytes() == table
    result = label_values(tmp_path / f"{stem}.ome.zarr")
    assert (result == label_values(local / "out/plain.anystar.ome.zarr")).all()
    assert objects(image) == before
    assert json.dumps(image) in (tmp_path / f"{stem}.ome.zarr/zarr.json").read_text()


def test_a_zipped_image_in_a_bucket_has_its_label_beside(
    bucket, local, tmp_path, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pack(local / "sharded.ome.zarr", tmp_path / "zip/plain.ozx")
    image = upload(tmp_path / "zip", f"{bucket}/zipped") + "/plain.ozx"
    done = command("segment", image, *SIZE, "--no-report")
    assert done.exit_code == 0, done.stderr
    download(f"{bucket}/zipped", tmp_path / "got")
    table = (local / "out/plain.anystar.csv").read_bytes()
    assert (tmp_path / "got/plain.anystar.csv").read_bytes() == table
    result = label_values(tmp_path / "got/plain.anystar.ome.zarr")
    assert (result == label_values(local / "out/plain.anystar.ome.zarr")).all()
    assert "label anystar, 5 instances" in command("info", image).stdout
    assert "nothing to do" in command("segment", image, *SIZE, "--json").stdout


def test_a_plate_in_a_bucket_has_one_table_there(bucket, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plate = make_plate(tmp_path / "scan.ome.zarr", {"B/03": ["0"]})
    address = upload(plate, f"{bucket}/plates/scan.ome.zarr")
    done = command("segment", address, *SIZE, "--json", "--no-report")
    assert done.exit_code == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["stats"], last["fields"]) == (f"{bucket}/plates/scan.anystar.csv", 1)
    download(f"{bucket}/plates", tmp_path / "got")
    rows = (tmp_path / "got/scan.anystar.csv").read_text().splitlines()
    own = (tmp_path / "got/scan.B.03.0.anystar.csv").read_text().splitlines()
    assert rows == [f"well,field,{own[0]}", *(f"B/03,0,{line}" for line in own[1:])]


def test_a_result_in_a_bucket_is_reviewed_there(bucket, local, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = upload(local / "plain.ome.zarr", f"{bucket}/review/plain.ome.zarr")
    out = upload(local / "out", f"{bucket}/review/out")
    done = command("review", image, "--output", out, "--page", "a.html", "--count", "3")
    assert done.exit_code == 0, done.stderr
    said = answer("a.html", "said.json", "right", "false", "right")
    done = command("review", image, "--output", out, "--answers", said, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["review"] == f"{out}/plain.anystar.review.json"
    download(out, tmp_path / "got")
    assert json.loads((tmp_path / "got/plain.anystar.review.json").read_text())["error_rate"]["of"]
    known = label_values(tmp_path / "got/plain.anystar.reviewed")
    labels = label_values(local / "out/plain.anystar.ome.zarr")
    is_object = (known > 0) & (known < 2**32 - 1)
    assert len(np.unique(known[is_object])) == 2
    assert (known[is_object] == labels[is_object]).all()


@pytest.fixture
def web(local, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    with web_server(local) as server:
        yield server


def test_an_image_of_a_web_server_gives_the_local_result(web, local, tmp_path, command):
    done = command("segment", f"{web.url}/sharded.ome.zarr/", *MANY_TILES, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    result = label_values(tmp_path / "sharded.anystar.ome.zarr")
    assert (result == label_values(local / "out/plain.anystar.ome.zarr")).all()
    assert {method for method, _, _ in web.asked} == {"GET", "HEAD"}
    assert any(part for _, path, part in web.asked if "/0/c/" in path)


def test_a_viewer_is_given_what_lies_on_a_web_server(web, local):
    image, label = scene(f"{web.url}/out/plain.anystar.ome.zarr").layers
    assert (image.name, label.name) == ("plain", "anystar")
    stored = label_values(local / "plain.ome.zarr")
    assert (np.asarray(image.levels[0][3]) == stored[3]).all()
    assert (np.asarray(label.levels[0]) == label_values(local / "out/plain.anystar.ome.zarr")).all()


def test_a_result_of_a_web_server_is_looked_at_and_judged_elsewhere(web, tmp_path, command):
    where = [f"{web.url}/plain.ome.zarr", "--output", f"{web.url}/out"]
    refused = command("review", *where, "--page", tmp_path / "a.html")
    assert refused.exit_code == 2
    assert "--output: " in refused.stderr  # no web server lists what it has


def test_results_cannot_go_to_a_web_server(web, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = f"{web.url}/plain.ome.zarr"
    for more in ([], ["--dry-run"], ["--output", f"{web.url}/out"]):
        done = command("segment", image, *SIZE, *more)
        assert done.exit_code == 2
        assert "a web server takes no results; give --output DIR" in done.stderr
    done = command("segment", image, *SIZE, "--dry-run", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert image in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_web_server_that_denies_what_is_missing(web, command):
    web.missing = 403
    done = command("info", f"{web.url}/old.ome.zarr")
    assert done.exit_code == 0, done.stderr
    assert "OME-NGFF 0.4" in done.stdout
    done = command("info", f"{web.url}/none.ome.zarr")
    assert done.exit_code == 2
    assert "access denied, or nothing there" in done.stderr


def test_a_server_that_ignores_ranges_is_told_of(web, tmp_path, command):
    web.knows_ranges = False
    done = command("segment", f"{web.url}/sharded.ome.zarr", *MANY_TILES, "--output", tmp_path)
    assert done.exit_code == 1
    assert "it ignores byte ranges" in done.stderr


def test_errors_that_pass_are_tried_again(web):
    from anystar_batch.archive.images import ImageReader, read_image

    source = read_image(f"{web.url}/plain.ome.zarr")
    reader = ImageReader(source)
    box = Box((0, 0, 0), (2, 2, 2))
    reader.read_box(0, 0, 0, box)
    web.fails = 2
    assert reader.read_box(0, 0, 0, box).any()
    web.fails = 2
    assert remote.read(f"{source.path}/zarr.json")
    web.fails = 3
    with pytest.raises(OSError, match="the server answers 503"):
        remote.read(f"{source.path}/zarr.json")


def test_a_server_that_is_down_is_no_empty_image(web, local):
    from anystar_batch.archive.images import ImageReader, read_image
    from anystar_batch.errors import DataError

    source = read_image(f"{web.url}/plain.ome.zarr")
    web.fails = 10**6
    with pytest.raises(DataError, match="the server answers 503"):
        ImageReader(source).read_box(0, 0, 0, Box((0, 0, 0), (20, 40, 44)))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://images/none.zarr", "no Zarr there"),
        ("s3://no-such-bucket/a.zarr", "there is no bucket s3://no-such-bucket"),
        ("s3://images", "no Zarr there"),
        ("s3:///a.zarr", "expected s3://BUCKET/PATH"),
        ("s3://images/a/../b.zarr", "expected s3://BUCKET/PATH"),
        ("ftp://host/a.zarr", "stores of this kind are not known; expected s3://, gs://"),
        ("https://me:secret@host/a.zarr", "https://host/a.zarr: the address holds credentials"),
        ("https://host/a.zarr?X-Amz-Signature=secret", "has a query or fragment"),
    ],
)
def test_addresses_without_an_image(bucket, command, address, message):
    done = command("info", address)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "secret" not in done.stderr


def test_without_credentials_it_says_so(bucket, command, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    close_clients()
    try:
        done = command("info", f"{bucket}/a.zarr")
    finally:
        close_clients()
    assert done.exit_code == 2
    assert "no usable credentials: Unable to locate credentials; give them by the en" in done.stderr


@pytest.mark.parametrize(
    ("address", "library"),
    [("s3://b/a.zarr", "s3fs"), ("gs://b/a.zarr", "gcsfs"), ("https://h/a.zarr", "aiohttp")],
)
def test_a_missing_library_names_the_extra(command, monkeypatch, address, library):
    remote.forget()
    monkeypatch.setitem(sys.modules, library, None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, address.partition("://")[0], raising=False)
    done = command("info", address)
    assert done.exit_code == 2
    assert f"needs {library}, which is not installed; pip install 'anystar-batch[cloud]'" in (
        done.stderr
    )


def test_gs_addresses_reach_their_library(bucket, local, command, monkeypatch):
    """The path is ours up to gcsfs, in whose place the S3 client answers here."""
    import s3fs

    class Gcs(s3fs.S3FileSystem):
        protocol = ("gs", "gcs")

    remote.forget()
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "gs", Gcs)
    upload(local / "plain.ome.zarr", f"{bucket}/gs/a.ome.zarr")
    done = command("info", "gs://images/gs/a.ome.zarr")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("gs://images/gs/a.ome.zarr\n")
    close_clients()


def test_local_work_loads_no_library_of_stores():
    code = (
        "import sys\n"
        "from anystar_batch.pipeline import outputs as places\n"
        "names = ('fsspec.asyn', 's3fs', 'aiohttp', 'gcsfs', 'botocore')\n"
        "from anystar_batch.archive import images\n"
        "print([m for m in names if m in sys.modules])\n"
    )
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"


# --- results in a bucket ----------------------------------------------------------------------


def consolidated(path):
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # outside the specification of Zarr 3
        zarr.consolidate_metadata(path)
    return path


def same_as_local(image, local, stem):
    """Whether label and table beside an image in a bucket have the bytes of the local run."""
    home = image.rpartition("/")[0]
    found = objects(home)
    expected = tiny_volume.contents(local / f"{stem}.ome.zarr")
    labels = {n: data for n, data in expected.items() if n.startswith("labels/")}
    shown = {
        n.removeprefix(f"{stem}.ome.zarr/"): data
        for n, data in found.items()
        if n.startswith(f"{stem}.ome.zarr/labels/")
    }
    assert shown == labels
    document, known = (
        json.loads(one) for one in (found[f"{stem}.ome.zarr/zarr.json"], expected["zarr.json"])
    )
    assert document == known
    assert "labels/anystar/0" in document["consolidated_metadata"]["metadata"]
    assert found[f"{stem}.anystar.csv"] == (local / f"{stem}.anystar.csv").read_bytes()
    beside = {n for n in found if not n.startswith(f"{stem}.ome.zarr/")}
    assert beside == {f"{stem}.anystar.{end}" for end in ("csv", "html", "run.json", "toml")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory, in which the work directory of runs on a bucket lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def worker(bucket):
    """The address of a Dask cluster of one process, which reaches the bucket by itself."""
    from distributed import Nanny, Scheduler, SpecCluster

    options = {"nthreads": 2, "memory_limit": 4 * 10**9, "dashboard": False}
    workers = {0: {"cls": Nanny, "options": options}}
    head = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
    with SpecCluster(workers, {"cls": Scheduler, "options": head}, silence_logs=50) as cluster:
        yield cluster.scheduler_address


def test_workers_write_labels_beside_an_image_in_a_bucket(bucket, here, command, worker):
    more = {"chunks": (10, 20, 44), "shards": (10, 40, 44)}
    tiny_volume.small_image(here / "a.ome.zarr", **more)
    consolidated(here / "a.ome.zarr")
    image = upload(here / "a.ome.zarr", f"{bucket}/beside/a.ome.zarr")
    tiny_volume.segment(here / "a.ome.zarr", tile=64)
    done = command("segment", image, *SIZE, "--scheduler", worker, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["label"] == f"{image}/labels/anystar"
    assert summary["stats"] == f"{bucket}/beside/a.anystar.csv"
    same_as_local(image, here, "a")
    done = command("info", image)
    assert f"label anystar, {summary['instances']} instances" in done.stdout
    done = command("segment", image, *SIZE, "--json")
    assert json.loads(done.stdout)["status"] == "nothing to do"
    assert not list(here.glob("*.work"))
    before = objects(f"{image}/labels/anystar/0")
    done = command("segment", image, *SIZE, "--stars", "--json")
    assert json.loads(done.stdout)["status"] == "done", done.stderr
    assert objects(f"{image}/labels/anystar/0") == before
    done = command("export", image, here / "a.geff", "--json")
    assert json.loads(done.stdout)["stars"] == summary["instances"]
    got = zarr.open_group(download(image, here / "got"), mode="r", use_consolidated=True)
    assert got["labels/anystar/stars/points"].shape == (summary["instances"], 3)
    assert not list(here.glob("*.work"))


def test_an_old_image_gets_its_labels_too(bucket, local, here, command):
    image = upload(local / "old.ome.zarr", f"{bucket}/second/old.ome.zarr")
    done = command("segment", image, *SIZE)
    assert done.exit_code == 0, done.stderr
    result = label_values(download(f"{image}/labels/anystar", here / "label"))
    assert (result == label_values(local / "out/plain.anystar.ome.zarr")).all()
    assert json.loads(objects(image)["labels/.zattrs"]) == {"labels": ["anystar"]}


def test_the_work_directory_must_be_local(bucket, local, here, command):
    image = local / "plain.ome.zarr"
    done = command("segment", image, *SIZE, "--output", here, "--work-dir", f"{bucket}/w")
    assert done.exit_code == 2
    assert "--work-dir: s3://images/w: expected a directory of a file system" in done.stderr


def test_sweeps_stay_on_this_machine(here, command):
    done = command("sweep", "s3://images/archive")
    assert done.exit_code == 2
    assert "only directories of this machine can be searched; name the images" in done.stderr
    done = command("sweep", here, "--output", "s3://images/out")
    assert done.exit_code == 2
    assert "--output: s3://images/out: a sweep writes to directories of this" in done.stderr
    assert not list(here.iterdir())


def test_what_waits_for_another_label_is_left_alone(bucket, local, here, command):
    """A run was stopped before it published; that of the label that is there has no part in it."""
    image = upload(local / "plain.ome.zarr", f"{bucket}/wait/a.zarr")
    options = ("segment", image, *SIZE, "--min-prob", "0.9")
    assert command(*options).exit_code == 0
    before = objects(f"{bucket}/wait")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_copy, "begin", lambda *_: die())
        with pytest.raises(Killed):
            command("segment", image, *SIZE, "--overwrite")
    assert ".a.anystar.pending/table.csv" in objects(f"{bucket}/wait")
    done = command(*options, "--json")
    assert json.loads(done.stdout)["status"] == "nothing to do"
    assert objects(f"{bucket}/wait")["a.anystar.csv"] == before["a.anystar.csv"]


class Killed(BaseException):
    """Stands for kill -9: no handler of `Exception` runs."""


def die():
    raise Killed


def test_a_rerun_from_elsewhere_finishes_what_was_being_replaced(bucket, here, command):
    (here / "one").mkdir()
    image = upload(
        tiny_volume.small_image(here / "b.ome.zarr", **KINDS["plain"]), f"{bucket}/k/b.zarr"
    )
    assert command("segment", image, *SIZE, "--min-prob", "0.95").exit_code == 0
    old, copy_all = objects(f"{bucket}/k"), label_copy.copy_tree
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "one")
        patch.setattr(label_copy, "copy_tree", lambda *a: (copy_all(*a), die()))
        with pytest.raises(Killed):
            command("segment", image, *SIZE, "--overwrite")
    between = objects(f"{bucket}/k")
    assert between["b.anystar.csv"] == old["b.anystar.csv"]
    assert json.loads(between["b.zarr/labels/zarr.json"])["attributes"]["ome"]["labels"] == []
    done = command("segment", image, *SIZE, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    found = objects(f"{bucket}/k")
    assert not [name for name in found if "/." in f"/{name}"]
    assert found["b.anystar.csv"] != old["b.anystar.csv"]
    assert found["b.anystar.csv"] == between[".b.anystar.pending/table.csv"]


def test_results_of_a_local_image_go_to_a_bucket(bucket, local, here, command):
    image = local / "plain.ome.zarr"
    out = f"{bucket}/out"
    done = command("segment", image, *SIZE, "--output", out, "--stats", here / "t.csv")
    assert done.exit_code == 0, done.stderr
    assert (here / "t.csv").read_bytes() == (local / "out/plain.anystar.csv").read_bytes()
    attributes = json.loads(objects(out)["plain.anystar.ome.zarr/zarr.json"])["attributes"]
    assert attributes["ome"]["image-label"]["source"]["image"] == str(image)


def test_a_bucket_that_is_not_there_is_told_before_work(bucket, local, here, command):
    image = local / "plain.ome.zarr"
    for more in ([], ["--dry-run"]):
        done = command("segment", image, *SIZE, "--output", "s3://no-such-bucket/a", *more)
        assert done.exit_code == 2
        assert "no-such-bucket" in done.stderr
        assert "give --output DIR" in done.stderr
