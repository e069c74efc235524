"""The table is made a range of labels at a time: ranges, workers and stops change no byte."""

from pathlib import Path

import pytest

from anystar_batch.engine.engines import InlineEngine
from anystar_batch.errors import OutOfTimeError
from anystar_batch.events import BlockDone
from anystar_batch.measure.table_files import courses_path
from anystar_batch.stages import table
from tests.support import tiny_volume
from tests.support.tiny_volume import Spheres

OPTIONS = {"reference_time": 1, "measure": ("feret", "sphericity")}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return tiny_volume.small_series(tmp_path_factory.mktemp("pieces") / "a.zarr")


def files(summary):
    courses = Path(courses_path(summary.stats))
    return Path(summary.stats).read_bytes(), courses.exists() and courses.read_bytes()


def run(image, label, suffix=".csv", sums=None, on_event=lambda _: None, engine=None, **options):
    stats = str(Path(image).parent / f"{label}{suffix}")
    with pytest.MonkeyPatch.context() as patch:
        if sums is not None:
            patch.setattr(table, "SUMS", sums)
        return tiny_volume.segment(
            image,
            on_event,
            engine=engine,
            factory=Spheres(),
            label=label,
            stats=stats,
            run={"block_shape": (12, 16, 16)},
            **options,
        )


@pytest.mark.parametrize(
    ("suffix", "options"), [(".csv", OPTIONS), (".csv", {}), (".parquet", OPTIONS)]
)
def test_ranges_of_labels_change_no_row(image, suffix, options):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    heard = []
    name = f"{len(options)}{suffix[1:]}"
    whole = run(image, f"whole{name}", suffix, **options)
    pieces = run(image, f"pieces{name}", suffix, 12, heard.append, InlineEngine(3), **options)
    done = [e for e in heard if isinstance(e, BlockDone) and e.stage == "table"]
    assert len(done) > 2
    assert sum(e.instances for e in done) == whole.instances
    if suffix == ".csv":
        assert files(pieces) == files(whole)
        return
    import pyarrow.parquet as parquet

    for one, other in zip(*map(names, (pieces, whole)), strict=True):
        assert parquet.read_table(one).equals(parquet.read_table(other))


def names(summary):
    every = (summary.stats, courses_path(summary.stats))
    return [path for path in every if Path(path).exists()]


def test_a_stopped_table_goes_on_where_it_was(image):
    whole = run(image, "uncut", **OPTIONS)
    engine, first, rest = InlineEngine(1), [], []

    def stop(event):
        if isinstance(event, BlockDone) and event.stage == "table":
            first.append(event)
            if len(first) == 2:
                engine.stop.ask("by the test")

    with pytest.raises(OutOfTimeError, match="table has"):
        run(image, "cut", ".csv", 12, stop, engine, **OPTIONS)
    summary = run(image, "cut", ".csv", 12, rest.append, **OPTIONS)
    done = [e for e in rest if isinstance(e, BlockDone) and e.stage == "table"]
    assert len(first) == 2
    assert sum(e.instances for e in (*first, *done)) == summary.instances
    assert not [e for e in rest if isinstance(e, BlockDone) and e.stage == "paint"]
    assert files(summary) == files(whole)


def test_another_kind_of_table_after_a_stop_takes_no_piece_of_the_first(image):
    parquet = pytest.importorskip("pyarrow.parquet")
    engine = InlineEngine(1)

    def stop(event):
        if isinstance(event, BlockDone) and event.stage == "table":
            engine.stop.ask("by the test")

    with pytest.raises(OutOfTimeError):
        run(image, "cut2", ".csv", 12, stop, engine)
    summary = run(image, "cut2", ".parquet", 12)
    found = parquet.read_table(summary.stats)
    assert found["label"].to_pylist() == list(range(1, summary.instances + 1))
