"""The one door to napari: layers become a window, or a picture of one.

Whether a window can be opened is tried in a process of its own: Qt ends a process that has no
screen, or lacks a library of the system, without an exception.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from anystar_batch.errors import OutputError, ViewerError, shorten
from anystar_batch.report.viewer.layers import Scene, ViewLayer

INSTALL = "napari is not installed; pip install 'anystar-batch[view]'"

TRY = """
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import QApplication
application = QApplication([])
raise SystemExit(0 if QOpenGLContext().create() else "there is no OpenGL")
"""
"""Opens nothing, and fails where no window can be opened or nothing be drawn in it."""

PATIENCE = 60.0
"""Seconds that the trial may take."""

SIZE = (1280, 800)
"""Of a window of which a picture is taken, pixels."""

ROUNDS = 20
"""How often Qt is asked to do what it has put off."""

ADD = {"image": "add_image", "labels": "add_labels"}


def check_viewer() -> None:
    """Check that napari is installed; nothing is imported.

    Raises
    ------
    ViewerError
        If it is not.
    """
    if importlib.util.find_spec("napari") is None:
        raise ViewerError(INSTALL)


def check_screen() -> None:
    """Check that a window can be opened.

    Raises
    ------
    ViewerError
        If Qt is not installed, or finds no screen.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "QT_LOGGING_RULES": ""},
        )
    except subprocess.TimeoutExpired as error:
        message = f"no window: the screen did not answer within {PATIENCE:.0f} s"
        raise ViewerError(message) from error
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if any("QtBindingsNotFoundError" in line or "No module named" in line for line in said):
        raise ViewerError(f"Qt, which napari draws with, {INSTALL.removeprefix('napari ')}")
    why = shorten(said[0]) if said else f"it ended with {done.returncode}"
    message = (
        f"no window can be opened here (Qt says: {why}); run it where there is a screen, or by "
        "ssh -X, or for a picture: xvfb-run anystar-batch view IMAGE --screenshot FILE.png"
    )
    raise ViewerError(message)


def layer_options(layer: ViewLayer) -> dict[str, Any]:
    """Return what napari is told of a layer: its voxels as `data`, and how they lie and look.

    Parameters
    ----------
    layer : ViewLayer
    """
    options: dict[str, Any] = {
        # A list of one level would be taken apart into its planes.
        "data": list(layer.levels) if len(layer.levels) > 1 else layer.levels[0],
        "multiscale": len(layer.levels) > 1,
        "name": layer.name,
        "scale": layer.scale,
        "translate": layer.translate,
        "axis_labels": layer.axes,
        "units": layer.units,
        "visible": layer.is_visible,
    }
    if layer.kind == "image":
        options |= {
            "contrast_limits": layer.contrast,
            "colormap": layer.colour,
            "blending": "additive",
        }
    return options


def show(scene: Scene, screenshot: Path | None = None) -> None:
    """Show layers in a window until it is closed, or write a picture of the window.

    Parameters
    ----------
    scene : Scene
    screenshot : Path, optional
        A PNG file; the window is closed at once then.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    with warnings.catch_warnings():
        # Of napari's own making; its plugins' too.
        warnings.simplefilter("ignore")
        import napari  # noqa: PLC0415  (2 s)

        viewer: Any = napari.Viewer(title=f"{scene.name} - anystar-batch")
        for layer in scene.layers:
            getattr(viewer, ADD[layer.kind])(**layer_options(layer))
        viewer.scale_bar.visible = True
        if screenshot is None:
            # Qt's loop hears no Ctrl-C otherwise, and there is nothing to lose.
            before = signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                napari.run()
            finally:
                signal.signal(signal.SIGINT, before)
            return
        try:
            _take_picture(viewer, screenshot)
        except OSError as error:
            message = f"{screenshot} cannot be written ({error.strerror or error})"
            raise OutputError(error.errno, message) from error
        finally:
            viewer.close()


def _take_picture(viewer: Any, path: Path) -> None:  # noqa: ANN401
    """Write the window as it looks once Qt has laid it out."""
    from qtpy.QtWidgets import QApplication  # noqa: PLC0415

    viewer.window.resize(*SIZE)
    for _ in range(ROUNDS):
        QApplication.processEvents()
    viewer.reset_view()
    for _ in range(ROUNDS):
        QApplication.processEvents()
    viewer.screenshot(str(path), canvas_only=False, flash=False)
