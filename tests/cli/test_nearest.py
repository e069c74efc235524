"""What is mistyped is answered with the nearest valid choice."""

import pytest

from anystar_batch.errors import did_you_mean
from tests.support import tiny_volume


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "anystar_mix"], "; did you mean 'anystar-mix'?"),
        (
            ["--precision", "Bfloat"],
            "expected auto or float32 or bfloat16; did you mean 'bfloat16'",
        ),
        (["--backend", "tensorfow"], "expected tensorflow or jax; did you mean 'tensorflow'?"),
        (["--measure", "sfericity"], "; did you mean 'sphericity'?"),
        (["--channel", "dapi "], "the image has 0 (DAPI), 1 (0); did you mean 'DAPI'?"),
    ],
)
def test_the_nearest_choice_of_an_option(tmp_path, words, said):
    from typer.testing import CliRunner

    from anystar_batch import cli

    omero = {"channels": [{"label": "DAPI"}, {"label": "0"}]}
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=1)
    tiny_volume.edit_json(
        tmp_path / "a.zarr" / "zarr.json", lambda d: d["attributes"]["ome"].update(omero=omero)
    )
    done = CliRunner().invoke(cli.app, ["segment", image, "--diameter", "5um", *words])
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_the_nearest_label_of_an_image(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, "--diameter", "5um", "--label", "nuclei")
    for name, words in (("evaluate", [image]), ("info", [])):
        done = command(name, f"{image}/labels/nuclie", *words)
        assert done.exit_code == 2
        assert "nuclie: no such file or directory; did you mean 'nuclei'?" in done.stderr
    assert "did you mean 'a.zarr'?" in command("info", tmp_path / "aa.zarr").stderr
    assert command("info", tmp_path / "no" / "b.zarr").stderr.endswith("file or directory\n")


def test_the_nearest_option_and_command(command):
    done = command("segment", "a.zarr", "--diametre", "5um")
    assert done.exit_code == 2
    assert "--diameter" in done.stderr
    done = command("segmnt", "a.zarr")
    assert done.exit_code == 2
    assert "segment" in done.stderr.partition("segmnt")[2]


def test_of_nothing_near_nothing_is_said():
    assert did_you_mean("quux", ["float32", "auto"]) == ""
    assert did_you_mean("x", []) == ""
