"""The package of the BioImage Model Zoo: its test is true, by Keras and NumPy alone."""

import zipfile

import numpy as np
import pytest
import yaml

from anystar_batch.errors import OutputExistsError
from tests.support.checkout import ROOT
from trainer.bioimageio import write_bioimageio

pytestmark = [pytest.mark.network, pytest.mark.filterwarnings("ignore")]


def test_the_weights_give_the_test_outputs_for_the_test_input(tmp_path):
    import keras

    out = tmp_path / "model.zip"
    write_bioimageio(ROOT / "models/anystar-mix", out)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    with zipfile.ZipFile(out) as package:
        package.extractall(tmp_path / "package")
    folder = tmp_path / "package"
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    named = [rdf["documentation"]["source"], rdf["weights"]["keras_v3"]["source"]]
    named += [one["test_tensor"]["source"] for one in rdf["inputs"] + rdf["outputs"]]
    named += [one["source"] for one in rdf["attachments"]]
    assert sorted([*named, "rdf.yaml"]) == sorted(path.name for path in folder.iterdir())
    scale, clip = (step["kwargs"] for step in rdf["inputs"][0]["preprocessing"])
    raw = np.load(folder / "test_input.npy")
    low, high = (np.percentile(raw, scale[f"{end}_percentile"]) for end in ("min", "max"))
    image = np.clip((raw - low) / (high - low + scale["eps"]), clip["min"], clip["max"])
    network = keras.models.load_model(folder / "weights.keras")
    for values, one in zip(network.predict(image, verbose=0), rdf["outputs"], strict=True):
        expected = np.load(folder / one["test_tensor"]["source"])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
        space = {axis["id"]: axis for axis in one["axes"] if axis["type"] == "space"}
        shape = [raw.shape["bzyx".index(a)] / space[a]["scale"] for a in "zyx"]
        assert list(expected.shape[1:4]) == shape
        assert expected.shape[4] == len(one["axes"][-1]["channel_names"])
    assert np.load(folder / "test_prob.npy").max() > 0.5  # there is something to be found
    with pytest.raises(OutputExistsError, match="exists already"):
        write_bioimageio(ROOT / "models/anystar-mix", out)
