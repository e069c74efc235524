"""Plates: every field is segmented, and one table tells of all."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import zarr
from pyarrow import parquet

from anystar_batch.measure.table_files import open_table
from anystar_batch.pipeline.inputs import Plate, PlateField
from anystar_batch.pipeline.plate_table import gather
from tests.support import tiny_volume

SIZE = ["--diameter", "5um", "--no-report", "-q"]
FIELDS = {"A/1": ["0", "1"], "B/03": ["0"]}


def make_plate(path, fields=FIELDS, version="0.5"):
    zarr_format = 3 if version == "0.5" else 2

    def describe(place, what, listed):
        group = zarr.open_group(str(place), mode="w", zarr_format=zarr_format)
        document = {"version": version, what: listed}
        group.attrs.update({"ome": document} if zarr_format == 3 else {what: listed})

    describe(path, "plate", {"wells": [{"path": well} for well in fields]})
    for well, names in fields.items():
        zarr.open_group(f"{path}/{well.split('/')[0]}", mode="a", zarr_format=zarr_format)
        describe(Path(path, well), "well", {"images": [{"path": name} for name in names]})
        for name in names:
            tiny_volume.small_image(Path(path, well, name), levels=1, version=version)
    return path


def read(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_field_is_segmented_and_one_table_holds_all_rows(tmp_path, command, version):
    plate = make_plate(tmp_path / "scan.ome.zarr", version=version)
    done = command("segment", plate, *SIZE)
    assert done.exit_code == 0, done.stderr
    rows = read(tmp_path / "scan.anystar.csv")
    expected = []
    for well, names in FIELDS.items():
        for name in names:
            stem = f"scan.{well}.{name}".replace("/", ".")
            own = read(tmp_path / f"{stem}.anystar.csv")
            assert own, stem
            expected += [{"well": well, "field": name} | row for row in own]
            assert (plate / well / name / "labels/anystar").is_dir()
    assert rows == expected
    assert list(rows[0])[:3] == ["well", "field", "label"]
    assert f"plate  {tmp_path}/scan.anystar.csv: {len(rows)} instances of 3 fields" in done.stdout
    before = (tmp_path / "scan.anystar.csv").read_bytes()
    again = command("segment", plate, *SIZE)
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout
    assert (tmp_path / "scan.anystar.csv").read_bytes() == before


def test_a_well_has_its_own_table(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr")
    done = command("segment", plate / "A/1", *SIZE, "--json")
    assert done.exit_code == 0, done.stderr
    rows = read(tmp_path / "scan.A.1.anystar.csv")
    assert {(row["well"], row["field"]) for row in rows} == {("A/1", "0"), ("A/1", "1")}
    last = json.loads(done.stdout.splitlines()[-1])
    assert last == {
        "plate": str(plate / "A/1"),
        "stats": str(tmp_path / "scan.A.1.anystar.csv"),
        "fields": 2,
        "rows": len(rows),
        "missing": [],
    }


def test_stats_names_the_table_of_the_plate(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr")
    out = tmp_path / "out"
    table = tmp_path / "tables/all.parquet"
    table.parent.mkdir()
    done = command("segment", plate, *SIZE, "--output", out, "--stats", table)
    assert done.exit_code == 0, done.stderr
    found = parquet.read_table(table)
    assert found.column_names[:3] == ["well", "field", "label"]
    fields = [parquet.read_table(out / f"scan.{f}.anystar.parquet") for f in ("A.1.0", "B.03.0")]
    rows = found.to_pylist()
    assert [r for r in rows if (r["well"], r["field"]) == ("A/1", "0")] == [
        {"well": "A/1", "field": "0"} | row for row in fields[0].to_pylist()
    ]
    assert [r for r in rows if r["well"] == "B/03"] == [
        {"well": "B/03", "field": "0"} | row for row in fields[1].to_pylist()
    ]
    assert found.schema.field("num_voxels").type == fields[0].schema.field("num_voxels").type


def test_a_field_that_is_missing_stops_no_other_and_is_named(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr", FIELDS | {"C/1": ["0"]})
    (plate / "C/1/zarr.json").unlink()
    (plate / "A/1/1/zarr.json").write_text("{")
    done = command("segment", plate, *SIZE)
    assert done.exit_code == 2
    rows = read(tmp_path / "scan.anystar.csv")
    assert {(row["well"], row["field"]) for row in rows} == {("A/1", "0"), ("B/03", "0")}
    assert "lacks 2 fields without a result: A/1/1, C/1" in done.stderr


def test_a_table_of_somebody_else_is_kept(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr")
    other = tmp_path / "scan.anystar.csv"
    other.write_text("mine,alone\n1,2\n")
    done = command("segment", plate, *SIZE)
    assert done.exit_code == 2
    assert "is no table of a plate" in done.stderr
    assert other.read_text() == "mine,alone\n1,2\n"
    assert not (plate / "A/1/0/labels").exists(), "it is said before work"
    assert command("segment", plate, *SIZE, "--overwrite").exit_code == 0
    assert read(other)[0]["well"] == "A/1"


def test_a_plate_and_an_image_of_its_name_are_two_runs(tmp_path, command):
    plate = make_plate(tmp_path / "scan.ome.zarr")
    tiny_volume.small_image(tmp_path / "scan.zarr")
    done = command("segment", plate, tmp_path / "scan.zarr", *SIZE)
    assert done.exit_code == 2
    assert "would both write files named scan.*" in done.stderr


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_a_field_has_no_column_for_stays_empty(tmp_path, suffix):
    import numpy as np

    tables = [tmp_path / f"{n}.{suffix}" for n in range(3)]
    columns = [("label", "a,b"), ("label", "c"), ("label", "a,b", "c")]
    for number, (path, names) in enumerate(zip(tables, columns, strict=True)):
        with open_table(path) as table:
            table.write({name: np.array([10 * number + k]) for k, name in enumerate(names)})
    fields = [(PlateField("p", "p", str(n), "A/1", str(n)), str(tables[n])) for n in range(3)]
    target = tmp_path / f"all.{suffix}"
    gone = PlateField("p", "p", "x", "A/2", "")
    found = gather(Plate("p", str(target), (*fields, (gone, str(tmp_path / "gone.csv")))))
    assert (found.fields, found.rows, found.missing) == (3, 3, ("A/2",))
    rows = (
        read(target)
        if suffix == "csv"
        else [
            {k: "" if v is None else str(v) for k, v in row.items()}
            for row in parquet.read_table(target).to_pylist()
        ]
    )
    assert rows == [
        {"well": "A/1", "field": "0", "label": "0", "a,b": "1", "c": ""},
        {"well": "A/1", "field": "1", "label": "10", "a,b": "", "c": "11"},
        {"well": "A/1", "field": "2", "label": "20", "a,b": "21", "c": "22"},
    ]


def test_a_sweep_makes_the_table_and_a_second_one_does_nothing(tmp_path, command):
    make_plate(tmp_path / "in/scan.ome.zarr")
    options = [tmp_path / "in", "--diameter", "5um", "--settle", "0s", "--json", "-q"]
    done = command("sweep", *options)
    assert done.exit_code == 0, done.stdout
    table = tmp_path / "in/scan.anystar.csv"
    rows = read(table)
    assert {(row["well"], row["field"]) for row in rows} == {
        (well, name) for well, names in FIELDS.items() for name in names
    }
    before = table.stat().st_mtime_ns
    again = command("sweep", *options)
    assert json.loads(again.stdout.splitlines()[-1])["counts"] == {"current": 3}
    assert table.stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "in/scan.ome.zarr/A/1/1/labels")
    (tmp_path / "in/scan.A.1.1.anystar.csv").unlink()
    table.write_text("well,field,label\n")
    assert command("sweep", *options).exit_code == 0
    assert read(table) == rows, "a field is new"
    table.unlink()
    assert command("sweep", *options).exit_code == 0
    assert read(table) == rows
