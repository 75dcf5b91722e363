"""One object of a class for each viewer."""

from __future__ import annotations

import gc
import weakref

from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy

from napari_chrep.canvas.drawing import Drawing
from napari_chrep.canvas.grid import SideBySide
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for


def test_proxies_of_a_viewer_share_one_object_and_equal_viewers_do_not():
    first, second = ViewerModel(), ViewerModel()
    assert kept_for(first, Session) is kept_for(PublicOnlyProxy(first), Session)
    assert kept_for(first, Session) is not kept_for(second, Session)


def test_each_class_has_an_object_of_its_own():
    viewer = ViewerModel()
    assert isinstance(kept_for(viewer, Drawing), Drawing)
    assert isinstance(kept_for(viewer, Session), Session)


def test_an_object_goes_with_its_viewer():
    viewer = ViewerModel()
    kept = [weakref.ref(kept_for(viewer, kind)) for kind in (Session, Drawing, SideBySide)]
    del viewer
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]
