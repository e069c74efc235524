from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from trainer import __main__ as module
from trainer import score
from trainer.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def options(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("ANYSTAR_BATCH_DATA", raising=False)
    (tmp_path / "config.json").write_text(tiny.to_json())
    return ["--run", str(tmp_path / "run")], ["--config", str(tmp_path / "config.json")]


def test_montage_draws_samples(options, capsys):
    run, config = options
    assert main(["montage", *run, *config]) == 0
    with Image.open(capsys.readouterr().out.strip()) as picture:
        assert picture.size == (8 * 18 * 3, 6 * 34 * 3)


@pytest.mark.network
def test_train_score_and_export_follow_each_other(options, tmp_path, capsys, monkeypatch):
    # Few are tried: a network of six steps finds candidates everywhere.
    monkeypatch.setattr(score, "THRESHOLDS", (0.5, 0.7))
    monkeypatch.setattr(score, "STRETCHES", (1.0, 1.03))
    run, config = options
    assert main(["train", *run, *config]) == 0
    assert (tmp_path / "run" / "curve.png").exists()
    capsys.readouterr()
    assert main(["score", *run, "--samples", "1"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"thresholds", "stretch", "synthetic"}
    with (tmp_path / "run" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["samples"]) == 12
    assert float(rows[0]["acc_synthetic"]) == scores["synthetic"][2]
    # Six steps make no model: the phantom says so, and nothing is published.
    model = tmp_path / "models" / "tiny"
    tile = ["--tile", "16", "--context", "8"]
    assert main(["export", *run, "--samples", "1", "--model", str(model), *tile]) == 2
    assert "of 27 spheres in a phantom" in capsys.readouterr().err
    assert not model.exists()


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main(["score", "--run", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_budgets_override_the_config(options, tiny):
    run, config = options
    parsed = module._parser().parse_args(
        ["train", *run, *config, "--minutes", "3", "--workers", "2", "--appearance", "device"]
    )
    chosen = module.run_config(parsed)
    assert (chosen.minutes, chosen.steps, chosen.workers) == (3.0, 6, 2)
    assert (tiny.appearance, chosen.appearance) == ("workers", "device")
    assert chosen.network == tiny.network


def test_presets_are_chosen_by_name(tmp_path):
    for preset, backgrounds in module.PRESETS.items():
        parsed = module._parser().parse_args(
            ["train", "--run", str(tmp_path), "--preset", preset, "--degradation", "published"]
        )
        chosen = module.run_config(parsed)
        assert chosen.sample.appearance.backgrounds == backgrounds
        assert chosen.sample.steps == module.SampleConfig.preset(preset, "published").steps


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--config", "none.json"],
        ["refine", "score"],
        ["refine", "train", "--config", "none.json"],
        ["score"],
    ],
)
def test_a_file_that_is_not_there_is_named_in_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--run", "nowhere"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "none.json" in said or "nowhere" in said
