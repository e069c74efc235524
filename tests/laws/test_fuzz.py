"""Spoilt metadata end in a plan or in one clear error: no traceback, no hang, bounded memory.

`ANYSTAR_BATCH_FUZZ` is the number of documents of each kind; 120 unless told.
"""

import contextlib
import json
import os
import signal
import traceback
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.errors import AnyStarBatchError
from anystar_batch.pipeline import dry_run
from anystar_batch.pipeline.info import describe
from tests.support import tiny_volume
from tests.support.broken_metadata import spoil, text_of
from tests.support.fakes import TruthPredictor

COUNT = int(os.environ.get("ANYSTAR_BATCH_FUZZ", "120"))
SECONDS = 300
"""What has not ended by then hangs, however busy the machine is."""
MEMORY = 200_000_000


@contextlib.contextmanager
def bounded():
    """Fail what hangs or takes memory by the size that metadata claim."""

    def late(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak < MEMORY, f"{peak / 1e6:.0f} MB"


def documents(image):
    """Every metadata file of an image."""
    names = {"zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata"}
    return sorted(p for p in Path(image).rglob("*") if p.name in names)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("what", ["describe", "plan"])
def test_spoilt_metadata(tmp_path, version, what):
    image = tiny_volume.small_image(tmp_path / "a.zarr", version=version)
    factory = TruthPredictor(tiny_volume.truth())
    files = documents(image)
    assert len(files) >= 3
    outcomes, wrong = {"good": 0, "refused": 0}, []
    for seed in range(COUNT):
        rng = np.random.default_rng((seed, len(version), len(what)))
        file = files[int(rng.integers(len(files)))]
        whole = file.read_bytes()
        file.write_bytes(text_of(spoil(json.loads(whole), rng, int(rng.integers(1, 3))), rng))
        try:
            with bounded():
                if what == "describe":
                    _, images = describe(str(image))
                    list(images)
                else:
                    dry_run.preview(
                        tiny_volume.config(image), model=tiny_volume.model(), factory=factory
                    )
            outcomes["good"] += 1
        except AnyStarBatchError as error:
            outcomes["refused"] += 1
            if not 0 < len(str(error).strip()) < 1000:
                wrong.append(
                    f"{seed}, {file.relative_to(image)}: {len(str(error))} in {error!s:.150}"
                )
        except Exception as error:  # noqa: BLE001  (all of them are told)
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(at.filename).name}:{at.lineno}"
            wrong.append(f"{seed}, {file.relative_to(image)}: {error!r:.300} at {where}")
        finally:
            file.write_bytes(whole)
    assert not wrong, "\n".join(wrong)
    assert min(outcomes.values()) > COUNT // 60, outcomes
