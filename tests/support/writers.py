"""Small images with the metadata of other writers: shapes of our own making, after what they write.

Read in their source (2026-11): acquire-zarr, BigStitcher-Spark, EuBI-Bridge, iohub, ngff-zarr,
stack_to_multiscale_ngff. The others follow what is known of their files and the specification, and
were not compared with any. Values are invented; arrays hold zeros.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr

MICROMETRE = {"type": "space", "unit": "micrometer"}
NANOMETRE = {"type": "space", "unit": "nanometer"}


@dataclass(frozen=True)
class Expected:
    """What is to be read: all of levels is (z, y, x)."""

    axes: str
    shapes: list[tuple[int, int, int]]
    voxels: list[tuple[float, float, float]]
    channels: tuple[str, ...] = ("0",)
    times: int = 1
    paths: tuple[str, ...] = ()
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    others: tuple[str, ...] = ()
    is_unit_assumed: bool = False
    version: str = "0.4"


@dataclass(frozen=True)
class Writer:
    """A tool, the groups and arrays that it leaves, and what its images are."""

    name: str
    zarr_format: int
    groups: dict[str, dict[str, Any]]
    arrays: dict[str, tuple[int, ...]]
    images: dict[str, Expected]
    separator: str = "/"
    names: tuple[str, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def axis(name, kind=None, unit=None, **more):
    """One axis; keys without a value are left out."""
    return {"name": name, **({"type": kind} if kind else {}), **({"unit": unit} if unit else {}),
            **more}  # fmt: skip


SPACE = [axis(a, "space", "micrometer") for a in "zyx"]
TCZYX = [axis("t", "time", "second"), axis("c", "channel"), *SPACE]


def dataset(path, scale, translation=None):
    """One level."""
    transforms = [{"type": "scale", "scale": list(scale)}]
    if translation is not None:
        transforms.append({"type": "translation", "translation": list(translation)})
    return {"path": path, "coordinateTransformations": transforms}


def omero(*labels, **more):
    """Rendering settings as OMERO's web gateway has them."""
    window = {"start": 0.0, "end": 1500.0, "min": 0.0, "max": 65535.0}
    return {
        "channels": [
            {"active": True, "coefficient": 1, "color": "00FF00", "family": "linear",
             "inverted": False, "label": label, "window": window}
            for label in labels
        ],
        "rdefs": {"defaultT": 0, "defaultZ": 4, "model": "color"},
        **more,
    }  # fmt: skip


def bioformats2raw(zarr_format):
    """Series in a container, `OME` beside them; ids of channels as names."""
    entry = {
        "name": "embryo.czi",
        "metadata": {"method": "loci.common.image.SimpleImageScaler", "version": "Bio-Formats 8"},
        "axes": TCZYX,
        "datasets": [
            dataset("0", (1.0, 1.0, 2.0, 0.5, 0.5)),
            dataset("1", (1.0, 1.0, 2.0, 1.0, 1.0)),
        ],
    }
    image = {"multiscales": [entry], "omero": omero("488", "561")}
    root: dict[str, Any] = {"bioformats2raw.layout": 3}
    listed: dict[str, Any] = {"series": ["0", "1"]}
    if zarr_format == 2:
        entry["version"] = "0.4"
    else:
        image, root, listed = ({"ome": {"version": "0.5", **x}} for x in (image, root, listed))
    expected = Expected(
        "tczyx", [(8, 16, 20), (8, 8, 10)], [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0)], ("488", "561"),
        times=2, version="0.4" if zarr_format == 2 else "0.5",
    )  # fmt: skip
    shapes = {"0": (2, 2, 8, 16, 20), "1": (2, 2, 8, 8, 10)}
    return Writer(
        f"bioformats2raw, Zarr v{zarr_format}", zarr_format,
        {"": root, "OME": listed, "0": image, "1": image},
        {f"{n}/{level}": shape for n in "01" for level, shape in shapes.items()},
        {"0": expected, "1": expected},
    )  # fmt: skip


def ome_zarr_py():
    """Version at the top, `_creator`, levels `s0`, the name of the root."""
    entry = {
        "axes": TCZYX[1:], "name": "/",
        "datasets": [dataset("s0", (1.0, 0.8, 0.4, 0.4)), dataset("s1", (1.0, 1.6, 0.8, 0.8))],
    }  # fmt: skip
    attributes = {
        "version": "0.5", "multiscales": [entry], "_creator": {"name": "ome-zarr", "version": "1"},
        "omero": omero("DAPI", "GFP", version="0.5", id=1),
    }  # fmt: skip
    return Writer(
        "ome-zarr-py", 3, {"": {"ome": attributes}}, {"s0": (2, 8, 16, 16), "s1": (2, 4, 8, 8)},
        {"": Expected("czyx", [(8, 16, 16), (4, 8, 8)], [(0.8, 0.4, 0.4), (1.6, 0.8, 0.8)],
                      ("DAPI", "GFP"), paths=("s0", "s1"), version="0.5")},
        names=tuple("czyx"),
    )  # fmt: skip


def ngff_zarr():
    """Arrays two groups down, orientations on axes, nulls, each level's own offset."""
    axes = [
        axis(a, "space", "micrometer", orientation={"type": "anatomical", "value": value})
        for a, value in zip("zyx", ("inferior-to-superior", "a-to-p", "right-to-left"), strict=True)
    ]
    entry = {
        "@type": "ngff:Image", "name": "image", "version": "0.4", "axes": axes, "omero": None,
        "datasets": [
            dataset("scale0/image", (1.0, 0.25, 0.25), (10.0, 20.0, 30.0)),
            dataset("scale1/image", (2.0, 0.5, 0.5), (10.5, 20.125, 30.125)),
        ],
        "coordinateTransformations": None, "type": "itkwasm_gaussian",
        "metadata": {"description": "Smoothed", "method": "itkwasm_downsample.downsample"},
    }  # fmt: skip
    return Writer(
        "ngff-zarr", 2, {"": {"multiscales": [entry]}, "scale0": {}, "scale1": {}},
        {"scale0/image": (8, 16, 16), "scale1/image": (4, 8, 8)},
        {"": Expected("zyx", [(8, 16, 16), (4, 8, 8)], [(1.0, 0.25, 0.25), (2.0, 0.5, 0.5)],
                      paths=("scale0/image", "scale1/image"), position=(10.0, 20.0, 30.0))},
    )  # fmt: skip


def iohub():
    """A plate; capital axes; a scale for the whole image; `identity` where nobody gave a size."""
    axes = [axis("T", "time", "second"), axis("C", "channel"),
            *({"name": a, **MICROMETRE} for a in "ZYX")]  # fmt: skip
    one = {"type": "scale", "scale": [1.0] * 5}

    def position(transform):
        entry = {
            "version": "0.4", "axes": axes, "name": "0",
            "datasets": [{"path": "0", "coordinateTransformations": [transform]}],
            "coordinateTransformations": [one],
        }  # fmt: skip
        return {
            "multiscales": [entry],
            "omero": omero("Phase3D", "Retardance", version="0.4", id=0, name="0"),
        }

    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}]
    plate = {
        "version": "0.4", "acquisitions": [{"id": 0}], "rows": [{"name": "A"}],
        "columns": [{"name": "1"}], "wells": wells,
    }  # fmt: skip
    sized = {"type": "scale", "scale": [1.0, 1.0, 0.25, 0.1, 0.1]}
    shape = (1, 2, 8, 16, 20)
    channels = ("Phase3D", "Retardance")
    return Writer(
        "iohub", 2,
        {"": {"plate": plate}, "A": {},
         "A/1": {"well": {"version": "0.4", "images": [{"path": "0"}, {"path": "1"}]}},
         "A/1/0": position(sized), "A/1/1": position({"type": "identity"})},
        {"A/1/0/0": shape, "A/1/1/0": shape},
        {"A/1/0": Expected("TCZYX", [(8, 16, 20)], [(0.25, 0.1, 0.1)], channels),
         # The image's own scale of ones is one: the voxel is what is written there.
         "A/1/1": Expected("TCZYX", [(8, 16, 20)], [(1.0, 1.0, 1.0)], channels)},
    )  # fmt: skip


def iohub_without_size():
    """A single position, of which `identity` is all that is said."""
    axes = [axis("C", "channel"), *({"name": a, **MICROMETRE} for a in "ZYX")]
    entry = {
        "version": "0.4", "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "identity"}]}],
    }  # fmt: skip
    return Writer(
        "iohub, no size", 2, {"": {"multiscales": [entry]}}, {"0": (1, 8, 16, 20)},
        {"": Expected("CZYX", [(8, 16, 20)], [(1.0, 1.0, 1.0)], is_unit_assumed=True)},
    )  # fmt: skip


def acquire_zarr():
    """A name beside `multiscales`, none in it; levels of a camera's frames; no `omero`."""
    entry = {
        "axes": TCZYX,
        "datasets": [
            dataset("0", (1.0, 1.0, 1.5, 0.325, 0.325)),
            dataset("1", (1.0, 1.0, 3.0, 0.65, 0.65)),
        ],
        "type": "local_mean",
        "metadata": {"description": "The fields in the metadata describe how to reproduce this",
                     "method": "local_mean", "version": "0.5.0", "args": "[2]", "kwargs": {}},
    }  # fmt: skip
    return Writer(
        "acquire-zarr", 3, {"": {"ome": {"version": "0.5", "name": "/", "multiscales": [entry]}}},
        {"0": (3, 2, 8, 16, 16), "1": (3, 2, 4, 8, 8)},
        {"": Expected("tczyx", [(8, 16, 16), (4, 8, 8)], [(1.5, 0.325, 0.325), (3.0, 0.65, 0.65)],
                      ("0", "1"), times=3, version="0.5")},
        names=tuple("tczyx"),
    )  # fmt: skip


def bigstitcher():
    """Paths from the root, nulls, a unit as BigDataViewer has it, offsets of averaged voxels."""
    axes = [axis("t", "time", "millisecond"), {"type": "channel", "name": "c", "unit": None},
            *(axis(a, "space", "um") for a in "zyx")]  # fmt: skip
    entry = {
        "name": "/", "type": None, "version": "0.4", "axes": axes, "metadata": None,
        "datasets": [
            dataset("/0", (1.0, 1.0, 2.0, 0.4, 0.4), (0.0,) * 5),
            dataset("/1", (1.0, 1.0, 2.0, 0.8, 0.8), (0.0, 0.0, 0.0, 0.2, 0.2)),
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 5}],
    }  # fmt: skip
    return Writer(
        "BigStitcher-Spark", 2, {"": {"multiscales": [entry], "Bigstitcher-Spark/NumChannels": 1}},
        {"0": (1, 1, 8, 16, 16), "1": (1, 1, 8, 8, 8)},
        {"": Expected("tczyx", [(8, 16, 16), (8, 8, 8)], [(2.0, 0.4, 0.4), (2.0, 0.8, 0.8)])},
    )  # fmt: skip


def bioio():
    """Units in the specification's words, the size twice: as dataset's scale and as ones."""
    entry = {
        "name": "Image:0", "axes": TCZYX[1:],
        "datasets": [dataset("0", (1.0, 0.29, 0.108, 0.108))],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0, 1.0]}],
    }  # fmt: skip
    settings = omero("EGFP", "TL Brightfield", id=1, name="Image:0", version="0.5")
    return Writer(
        "bioio-ome-zarr", 3,
        {"": {"ome": {"version": "0.5", "multiscales": [entry], "omero": settings,
                      "_creator": {"name": "bioio-ome-zarr", "version": "3"}}}},
        {"0": (2, 8, 16, 16)},
        {"": Expected("czyx", [(8, 16, 16)], [(0.29, 0.108, 0.108)], ("EGFP", "TL Brightfield"),
                      version="0.5")},
        names=tuple("czyx"),
    )  # fmt: skip


def fractal():
    """A plate with tables and labels within; channels known by their wavelength, too."""
    entry = {
        "version": "0.4", "name": "well_A01", "axes": TCZYX[1:],
        "datasets": [
            dataset("0", (1.0, 1.0, 0.1625, 0.1625)), dataset("1", (1.0, 1.0, 0.325, 0.325)),
        ],
    }  # fmt: skip
    settings = omero("DAPI", "nanog", version="0.4")
    for n, channel in enumerate(settings["channels"], start=1):
        channel["wavelength_id"] = f"A01_C0{n}"
    wells = [{"path": "A/01", "rowIndex": 0, "columnIndex": 0}]
    plate = {
        "version": "0.4", "name": "screen", "rows": [{"name": "A"}], "columns": [{"name": "01"}],
        "wells": wells, "acquisitions": [{"id": 0, "name": "screen_acq0"}],
    }  # fmt: skip
    return Writer(
        "Fractal converters", 2,
        {"": {"plate": plate}, "A": {},
         "A/01": {"well": {"version": "0.4", "images": [{"path": "0", "acquisition": 0}]}},
         "A/01/0": {"multiscales": [entry], "omero": settings},
         "A/01/0/tables": {"tables": ["FOV_ROI_table"], "version": "1"},
         "A/01/0/labels": {"labels": []}},
        {"A/01/0/0": (2, 8, 16, 16), "A/01/0/1": (2, 8, 8, 8)},
        {"A/01/0": Expected("czyx", [(8, 16, 16), (8, 8, 8)],
                            [(1.0, 0.1625, 0.1625), (1.0, 0.325, 0.325)], ("DAPI", "nanog"))},
    )  # fmt: skip


def imaris_stacks():
    """From Imaris and stacks for an archive: a version of its own, flat chunk keys."""
    axes = [axis("t", "time", "millisecond"), axis("c", "channel"),
            *({"name": a, **MICROMETRE} for a in "zyx")]  # fmt: skip
    entry = {
        "version": "0.5-dev", "name": "a dataset", "axes": axes, "type": "mean",
        "datasets": [
            dataset("scale0", (1, 1, 1.0, 0.35, 0.35)), dataset("scale1", (1, 1, 2.0, 0.7, 0.7)),
        ],
        "metadata": {"description": "local mean"},
    }  # fmt: skip
    return Writer(
        "stack_to_multiscale_ngff", 2,
        {"": {"multiscales": [entry], "omero": omero("Channel0", id=1, version="0.5-dev")}},
        {"scale0": (1, 1, 8, 16, 16), "scale1": (1, 1, 4, 8, 8)},
        {"": Expected("tczyx", [(8, 16, 16), (4, 8, 8)], [(1.0, 0.35, 0.35), (2.0, 0.7, 0.7)],
                      ("Channel0",), paths=("scale0", "scale1"))},
        separator=".",
    )  # fmt: skip


def eubi_bridge():
    """From CZI, Imaris and other microscopes: a creator, an empty `metadata`, times in seconds."""
    entry = {
        "name": "Series 0", "axes": TCZYX, "metadata": {},
        "datasets": [
            dataset("0", (5.0, 1.0, 0.9, 0.2, 0.2)), dataset("1", (5.0, 1.0, 0.9, 0.4, 0.4)),
        ],
    }  # fmt: skip
    ome = {
        "version": "0.5", "multiscales": [entry], "omero": omero("AF488-T1", "H3342"),
        "_creator": {"name": "NGFFMetadataHandler", "version": "1.0"},
    }  # fmt: skip
    return Writer(
        "EuBI-Bridge", 3, {"": {"ome": ome}}, {"0": (2, 2, 8, 16, 16), "1": (2, 2, 8, 8, 8)},
        {"": Expected("tczyx", [(8, 16, 16), (8, 8, 8)], [(0.9, 0.2, 0.2), (0.9, 0.4, 0.4)],
                      ("AF488-T1", "H3342"), times=2, version="0.5")},
        names=tuple("tczyx"),
    )  # fmt: skip


def all_in_the_multiscale():
    """Of nobody in particular: `omero` and the version inside the multiscale alone."""
    entry = {
        "version": "0.5", "name": "inner", "axes": TCZYX[1:],
        "datasets": [dataset("0", (1.0, 0.9, 0.2, 0.2))], "omero": omero("BF", "H2B"),
    }  # fmt: skip
    return Writer(
        "all in the multiscale", 3, {"": {"ome": {"multiscales": [entry]}}}, {"0": (2, 8, 16, 16)},
        {"": Expected("czyx", [(8, 16, 16)], [(0.9, 0.2, 0.2)], ("BF", "H2B"), version="0.5")},
    )  # fmt: skip


def cellmap():
    """For Neuroglancer: nanometres, levels `s0`, offsets, an empty name, ones for the whole."""
    axes = [{"name": a, **NANOMETRE} for a in "zyx"]
    entry = {
        "version": "0.4", "name": "", "axes": axes,
        "datasets": [
            dataset("s0", (400.0, 400.0, 400.0), (1e3, 2e3, 3e3)),
            dataset("s1", (800.0, 800.0, 800.0), (1.2e3, 2.2e3, 3.2e3)),
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
    }  # fmt: skip
    return Writer(
        "CellMap, for Neuroglancer", 2, {"": {"multiscales": [entry]}},
        {"s0": (8, 16, 16), "s1": (4, 8, 8)},
        {"": Expected("zyx", [(8, 16, 16), (4, 8, 8)], [(0.4,) * 3, (0.8,) * 3],
                      paths=("s0", "s1"), position=(1.0, 2.0, 3.0))},
    )  # fmt: skip


def webknossos():
    """Axes c, x, y, z; levels by their magnification."""
    axes = [axis("c", "channel"), *({"name": a, **NANOMETRE} for a in "xyz")]
    entry = {
        "version": "0.4", "name": "color", "axes": axes,
        "datasets": [
            dataset("1", (1.0, 110.0, 120.0, 280.0)), dataset("2-2-1", (1.0, 220.0, 240.0, 280.0)),
        ],
    }  # fmt: skip
    return Writer(
        "WEBKNOSSOS", 2, {"": {"multiscales": [entry]}},
        {"1": (1, 20, 16, 8), "2-2-1": (1, 10, 8, 8)},
        {"": Expected("cxyz", [(8, 16, 20), (8, 8, 10)],
                      [(0.28, 0.12, 0.11), (0.28, 0.24, 0.22)], paths=("1", "2-2-1"))},
    )  # fmt: skip


def multiscale_spatial_image():
    """A multiscale for each variable of one data set, types and units of axes left out."""
    axes = [{"name": a} for a in "zyx"]

    def variable(name):
        return {
            "@type": "ngff:Image", "version": "0.4", "name": name, "axes": axes,
            "datasets": [dataset(f"scale0/{name}", (1.0, 0.5, 0.5), (0.0, 0.0, 0.0))],
        }  # fmt: skip

    shape = (8, 16, 16)
    return Writer(
        "multiscale-spatial-image", 2,
        {"": {"multiscales": [variable("image"), variable("mask")]}, "scale0": {}},
        {"scale0/image": shape, "scale0/mask": shape},
        {"": Expected("zyx", [shape], [(1.0, 0.5, 0.5)], paths=("scale0/image",), others=("mask",),
                      is_unit_assumed=True)},
    )  # fmt: skip


def xarray_ome_ngff():
    """Units as coordinates have them: symbols, and below `units`."""
    axes = [{"name": a, "type": "space", "units": "nm"} for a in "zyx"]
    entry = {"version": "0.4", "axes": axes, "datasets": [dataset("0", (300.0, 100.0, 100.0))]}
    return Writer(
        "xarray's units", 2, {"": {"multiscales": [entry]}}, {"0": (8, 16, 16)},
        {"": Expected("zyx", [(8, 16, 16)], [(0.3, 0.1, 0.1)])},
    )  # fmt: skip


WRITERS = [
    bioformats2raw(2), bioformats2raw(3), ome_zarr_py(), ngff_zarr(), iohub(),
    iohub_without_size(), acquire_zarr(), bigstitcher(), bioio(), fractal(), imaris_stacks(),
    eubi_bridge(), all_in_the_multiscale(), cellmap(), webknossos(), multiscale_spatial_image(),
    xarray_ome_ngff(),
]  # fmt: skip


def write(writer, path):
    """Lay a writer's image down: its documents as they are, its arrays by zarr."""
    root = Path(path)
    for relative, shape in writer.arrays.items():
        kind = "v2" if writer.zarr_format == 2 else "default"
        options = {"chunk_key_encoding": {"name": kind, "separator": writer.separator}}
        if writer.names is not None:
            options["dimension_names"] = writer.names
        zarr.create_array(
            str(root / relative), shape=shape, chunks=tuple(min(n, 8) for n in shape),
            dtype="uint16", zarr_format=writer.zarr_format, **options,
        )  # fmt: skip
    for relative, attributes in writer.groups.items():
        group = root / relative
        group.mkdir(parents=True, exist_ok=True)
        if writer.zarr_format == 2:
            (group / ".zgroup").write_text('{"zarr_format": 2}')
            (group / ".zattrs").write_text(json.dumps(attributes))
        else:
            document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            (group / "zarr.json").write_text(json.dumps(document))
    return str(root)
