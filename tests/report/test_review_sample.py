"""Whom a person is asked about: by chance, always the same, and the worst first."""

import csv

import numpy as np
import pytest

from anystar_batch.report import table_rows
from anystar_batch.report.review_sample import _COLUMNS, each, select


def table(path, count, *, quality=True, seed=0):
    rng = np.random.default_rng(seed)
    columns = {name: np.zeros(count) for name in _COLUMNS}
    columns |= {"label": np.arange(1, count + 1), "prob": rng.random(count).round(2)}
    if quality:
        columns["quality"] = rng.random(count).round(2)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path, columns


def labels(rows):
    return [int(v) for v in rows["label"]]


def test_a_larger_sample_begins_with_the_smaller_one_and_a_seed_is_another_one(tmp_path):
    path, _ = table(tmp_path / "a.csv", 500)
    sample = labels(select(path, 100, 0, 3).sample)
    assert len(set(sample)) == 100
    assert sample != sorted(sample)
    assert labels(select(path, 200, 0, 3).sample)[:100] == sample
    assert len(set(sample) & set(labels(select(path, 100, 0, 4).sample))) < 50
    assert select(path, 9, 9, 3).instances == 500


def test_every_instance_is_drawn_alike_often(tmp_path):
    path, _ = table(tmp_path / "a.csv", 50)
    drawn = np.zeros(51)
    for seed in range(400):
        drawn[labels(select(path, 10, 0, seed).sample)] += 1
    # Binomial, 400 draws of a fifth: 80, standard deviation 8.
    assert abs(drawn[1:] - 80).max() < 4 * 8
    assert 0.6 < drawn[1:].var() / 64 < 1.6


@pytest.mark.parametrize("quality", [True, False])
def test_the_worst_come_first_and_are_not_in_the_sample(tmp_path, quality):
    path, columns = table(tmp_path / "a.csv", 200, quality=quality)
    found = select(path, 50, 60, 0)
    worst, sample = labels(found.worst), set(labels(found.sample))
    keys = ("label", "prob", "quality") if quality else ("label", "prob")
    order = np.lexsort([columns[k] for k in keys])
    expected = [n for n in columns["label"][order] if n not in sample][:60]
    assert worst == expected


def test_how_the_table_is_read_changes_nothing(tmp_path, monkeypatch):
    path, _ = table(tmp_path / "a.csv", 300)
    whole = select(path, 40, 30, 1)
    monkeypatch.setattr(table_rows, "PIECE", 7)
    pieces = select(path, 40, 30, 1)
    assert labels(pieces.sample) == labels(whole.sample)
    assert labels(pieces.worst) == labels(whole.worst)


def test_few_instances_are_all_drawn_and_none_is_no_fault(tmp_path):
    path, _ = table(tmp_path / "a.csv", 3)
    found = select(path, 100, 50, 0)
    assert sorted(labels(found.sample)) == [1, 2, 3]
    assert each(found.worst) == []
    none = select(table(tmp_path / "b.csv", 0)[0], 100, 50, 0)
    assert (none.instances, each(none.sample), each(none.worst)) == (0, [], [])
