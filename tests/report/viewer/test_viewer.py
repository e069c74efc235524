"""`view`: what a viewer is given of an image and its labels; the window by a napari that is not."""

import importlib.machinery
import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.report.viewer import layers, window
from anystar_batch.report.viewer.layers import scene
from anystar_batch.report.viewer.levels import LazyLevel
from tests.laws.test_times import container
from tests.pipeline.test_plate_table import make_plate
from tests.support import tiny_volume
from tests.support.fakes import write_image

RUN = ["--diameter", "5um", "-q"]


def by_name(found):
    return {layer.name: layer for layer in found.layers}


def ome(image, **more):
    tiny_volume.edit_json(Path(image) / "zarr.json", lambda d: d["attributes"]["ome"].update(more))


def test_image_and_label_lie_over_each_other_in_micrometres(tmp_path):
    cube = tiny_volume.truth().image(np.uint16)
    image = write_image(
        tmp_path / "a.ome.zarr",
        [cube, cube[:, ::2, ::2]],
        scale=(2000.0, 500.0, 250.0),
        unit="nanometer",
        translations=[(4000.0, 100.0, 0.0)] * 2,
    )
    tiny_volume.segment(image)
    found = scene(image)
    assert (found.name, found.notes) == ("a", ())
    assert [(layer.kind, layer.name) for layer in found.layers] == [
        ("image", "a"),
        ("labels", "anystar"),
    ]
    for layer in found.layers:
        assert layer.axes == ("z", "y", "x")
        assert layer.scale == pytest.approx((2.0, 0.5, 0.25))
        assert layer.translate == pytest.approx((4.0, 0.1, 0.0))
        assert layer.units == ("micrometer",) * 3
        assert layer.is_visible
        assert [level.shape for level in layer.levels] == [(20, 40, 44), (20, 20, 22)]
    assert np.array_equal(np.asarray(found.layers[0].levels[1]), cube[:, ::2, ::2])
    stored = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    assert stored.any()
    assert np.array_equal(np.asarray(found.layers[1].levels[0]), stored)


def test_every_channel_is_a_layer_with_the_colours_and_limits_of_the_metadata(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", axes="tczyx", times=2, channels=2)
    channels = [
        {"label": "DAPI", "color": "0000FF", "window": {"start": 90, "end": 500}},
        {"label": "", "active": False, "window": {"start": 0, "end": 65535}},
    ]
    ome(image, omero={"channels": channels})
    first, second = scene(image).layers
    assert (first.name, first.colour, first.contrast) == ("DAPI", "#0000ff", (90.0, 500.0))
    assert (second.name, second.is_visible) == ("channel 1", False)
    assert second.colour == layers.COLOURS[1]
    values = np.stack([tiny_volume.truth(1 + t).image(np.uint16) + 100 for t in range(2)])
    assert second.contrast == pytest.approx(np.percentile(values[1], [1.0, 99.9]))
    assert second.axes == ("t", "z", "y", "x")
    assert np.array_equal(np.asarray(second.levels[0]), values)


def test_time_has_its_own_step_and_unit(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", axes="tzyx", times=2)

    def slower(document):
        entry = document["attributes"]["ome"]["multiscales"][0]
        entry["axes"][0]["unit"] = "second"
        entry["datasets"][0]["coordinateTransformations"][0]["scale"][0] = 30.0

    tiny_volume.edit_json(Path(image) / "zarr.json", slower)
    (layer,) = scene(image).layers
    assert (layer.scale, layer.units[0]) == ((30.0, 0.5, 0.5, 0.5), "second")
    tiny_volume.edit_json(
        Path(image) / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0]["axes"][0].update(unit="frames"),
    )
    assert scene(image).layers[0].units[0] == "pixel"


def test_labels_of_an_output_directory_are_found_by_what_they_say(tmp_path, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "in/a.ome.zarr")
    other = tiny_volume.small_image(tmp_path / "in/b.ome.zarr")
    out = tmp_path / "out"
    for name in ("anystar", "big.ones"):
        command("segment", image, *RUN, "--output", out, "--label", name)
    command("segment", other, *RUN, "--output", out)
    found = scene(image, output=str(out))
    assert [layer.name for layer in found.layers] == ["a", "anystar", "big.ones"]
    assert [layer.is_visible for layer in found.layers] == [True, True, False]
    assert np.asarray(found.layers[2].levels[0]).max() == 5
    assert list(by_name(scene(image, ["big.ones"], str(out)))) == ["a", "big.ones"]
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert list(by_name(scene("in/a.ome.zarr/", output="out/"))) == list(by_name(found))
    (note,) = scene(image).notes
    assert note == "the image has no labels; give --output DIR if segment was given one"
    with pytest.raises(
        ConfigError, match=r"has no label bigones; there are anystar, big.ones; did"
    ):
        scene(image, ["bigones"], str(out))
    with pytest.raises(ConfigError, match=r"--output: .*nowhere holds no label of .*a.ome.zarr"):
        scene(image, output=str(tmp_path / "nowhere"))


def test_a_label_is_shown_with_its_image(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    command("segment", image, *RUN)
    command("segment", image, *RUN, "--label", "second")
    command("segment", image, *RUN, "--output", tmp_path / "out")
    assert list(by_name(scene(f"{image}/labels/second"))) == ["a", "second"]
    alone = tmp_path / "out/a.anystar.ome.zarr"
    assert list(by_name(scene(str(alone)))) == ["a", "anystar"]
    shutil.rmtree(image)
    found = scene(str(alone))
    assert list(by_name(found)) == ["anystar"]
    assert found.notes == (f"the label's image {image} is not there; it is shown alone",)
    ome(alone, **{"image-label": {}})
    assert "does not say which image" in scene(str(alone)).notes[0]


def test_what_is_no_label_is_left_out_and_refused_by_name(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    write_image(f"{image}/labels/soft", [np.ones((4, 4, 4), np.float32)])
    found = scene(image)
    assert list(by_name(found)) == ["a", "anystar"]
    assert "label soft is left out" in found.notes[0]
    assert "integer labels" in found.notes[0]
    with pytest.raises(ImageError, match="expected integer labels"):
        scene(image, ["soft"])


def test_one_image_is_to_be_given(tmp_path):
    plate = make_plate(tmp_path / "plate.zarr")
    with pytest.raises(ImageError, match=r"of 3 images \(HCS\); give one, e.g. .*/A/1/0"):
        scene(str(plate))
    assert scene(f"{plate}/A/1/0").name == "0"
    root = container(tmp_path / "scan.zarr", 2)
    with pytest.raises(ImageError, match=r"a container of 2 images; give one, e.g. .*/0"):
        scene(str(root))
    with pytest.raises(ImageError, match=r"no such file or directory; did you mean 'plate.zarr'"):
        scene(str(tmp_path / "plte.zarr"))


def test_an_image_without_coarse_levels_is_slow_or_refused(tmp_path, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr", levels=1, unit=None)
    # A plane of 40 x 44 voxels touches chunks of 16 x 48 x 48 voxels of 2 bytes.
    monkeypatch.setattr(layers, "SLOW_BYTES", 16 * 48 * 48 * 2 - 1)
    slow, unit = scene(image).notes[-2:]
    assert "0 GB are read to show a plane, for want of coarse levels" in slow
    assert unit == "the image states no unit of length; micrometres are assumed"
    monkeypatch.setattr(layers, "MOST_BYTES", 16 * 48 * 48 * 2 - 1)
    with pytest.raises(ImageError, match="expected coarse levels; make them"):
        scene(image)
    monkeypatch.setattr(layers, "SLOW_BYTES", 16 * 48 * 48 * 2)
    assert len(scene(image).notes) == 2


def test_an_image_without_contrast_has_limits_all_the_same(tmp_path):
    image = write_image(tmp_path / "a.zarr", [np.zeros((4, 8, 8), np.float32)])
    assert scene(image).layers[0].contrast == (0.0, 1.0)


@pytest.fixture
def napari(monkeypatch):
    """A module that notes what it is asked for."""
    asked = []

    class Viewer:
        def __init__(self, **options):
            asked.append(("Viewer", options))
            self.scale_bar = types.SimpleNamespace(visible=False)
            self.window = types.SimpleNamespace(resize=lambda *size: asked.append(("resize", size)))

        def __getattr__(self, name):
            return lambda *given, **options: asked.append((name, given, options))

    fake = types.ModuleType("napari")
    fake.__spec__ = importlib.machinery.ModuleSpec("napari", None)
    fake.Viewer = Viewer
    fake.run = lambda: asked.append(("run",))
    monkeypatch.setitem(sys.modules, "napari", fake)
    monkeypatch.setattr(window, "TRY", "")
    return asked


def test_the_command_gives_napari_the_levels_unread(tmp_path, command, napari, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    done = command("view", image, "--label", "anystar")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert [call[0] for call in napari] == ["Viewer", "add_image", "add_labels", "run"]
    _, given, options = napari[1]
    assert given == ()
    assert options["multiscale"] is True
    assert [level.shape for level in options["data"]] == [(20, 40, 44), (20, 20, 22)]
    assert options["scale"] == (0.5, 0.5, 0.5)
    assert options["units"] == ("micrometer",) * 3
    assert options["axis_labels"] == ("z", "y", "x")
    assert options["colormap"] == "#ffffff"
    assert 100 <= options["contrast_limits"][0] < 120
    options = napari[2][2]
    assert all(isinstance(level, LazyLevel) for level in options["data"])
    assert (options["name"], options["visible"]) == ("anystar", True)
    assert "colormap" not in options


def test_notes_go_to_stderr_and_may_be_left_out(tmp_path, command, napari):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("view", image)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("the image has no labels")
    assert command("view", image, "-q").stderr == ""


def test_without_napari_one_line_says_how_to_install_it(tmp_path, command, monkeypatch):
    monkeypatch.setattr(window.importlib.util, "find_spec", lambda _: None)
    done = command("view", tmp_path / "not-even-looked-for.zarr")
    assert done.exit_code == 2
    assert done.stderr == "error: napari is not installed; pip install 'anystar-batch[view]'\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_binding", "Qt, which napari draws with, is not installed; pip install"),
        ("raise SystemExit('could not connect to display :7')", "display :7); run it where there"),
        ("import os; os.abort()", "(Qt says: it ended with -6)"),
    ],
)
def test_without_a_screen_one_line_says_so(tmp_path, command, napari, monkeypatch, code, said):
    monkeypatch.setattr(window, "TRY", code)
    done = command("view", tiny_volume.small_image(tmp_path / "a.zarr"))
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert napari == []


def test_a_screen_that_does_not_answer(tmp_path, command, napari, monkeypatch):
    monkeypatch.setattr(window, "TRY", "import time; time.sleep(60)")
    monkeypatch.setattr(window, "PATIENCE", 0.2)
    done = command("view", tiny_volume.small_image(tmp_path / "a.zarr"))
    assert done.exit_code == 2
    assert "did not answer" in done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`json_encoders` is deprecated")
def test_the_real_napari_takes_the_layers(tmp_path):
    """Without a window: its own model of a viewer slices and places them."""
    components = pytest.importorskip("napari.components", reason="napari is not installed")
    image = tiny_volume.small_series(tmp_path / "a.zarr", axes="ctzyx", times=2)
    tiny_volume.segment(image, time="0,1", output=tmp_path / "out")
    model = components.ViewerModel()
    found = scene(image, output=str(tmp_path / "out"))
    for layer in found.layers:
        getattr(model, window.ADD[layer.kind])(**window.layer_options(layer))
    labels = model.layers["anystar"]
    assert model.dims.axis_labels == ("t", "z", "y", "x")
    assert [str(unit) for unit in labels.units] == ["pixel", *["micrometer"] * 3]
    for layer in model.layers:
        # Pixels reach half a voxel beyond their centres.
        assert layer.extent.world[:, 1:] == pytest.approx(np.array([[0, 0, 0], [9.5, 19.5, 21.5]]))
    model.dims.set_current_step((0, 1), (1, 7))
    values = np.stack([tiny_volume.truth(1 + t).image(np.uint16) for t in range(2)])
    assert np.array_equal(model.layers["channel 1"]._slice.image.raw, values[1, 7] + 100)
    assert labels.get_value((1, 3.5, 5.0, 5.0), world=True) is not None


def test_a_real_window_shows_the_labels_in_colour(tmp_path, command):
    """Needs napari, Qt and a screen; CI has none (docs/view.md says how to run it)."""
    qt = pytest.importorskip("qtpy", reason="Qt is not installed", exc_type=Exception)
    if not os.environ.get("DISPLAY"):
        pytest.skip("there is no screen: run it under xvfb-run")
    del qt
    from PIL import Image

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    picture = tmp_path / "window.png"
    done = command("view", image, "--screenshot", picture)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{picture}\n"
    shown = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    canvas = shown[100:700, 450:1200]
    coloured = np.ptp(canvas, axis=2) > 40
    assert 0.01 < coloured.mean() < 0.6
    done = command("view", image, "--screenshot", tmp_path / "nowhere/window.png")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert json.dumps(str(tmp_path / "nowhere/window.png"))[1:-1] in done.stderr
