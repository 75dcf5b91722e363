"""The stained tissue under the spots, to read a map by."""

from __future__ import annotations

import base64
import io

import numpy as np

from chrep_model.cohorts.section import Section
from chrep_model.evaluation.report.markup import Markup, field, tag
from chrep_model.geometry import px_to_um

_READ_PX, _SHOWN_PX = 2048, 560
_QUALITY = 78


def histology(section: Section, margin_um: float) -> Markup:
    """The slide around a section's spots, `margin_um` beyond the outermost centres: the field of the maps."""
    from PIL import Image

    with section.open_slide() as slide:
        pixels, down = slide.thumbnail(_READ_PX)
    margin = margin_um / px_to_um(1.0, section.mpp)
    low, high = (section.xy.min(0) - margin) / down, (section.xy.max(0) + margin) / down
    x0, y0 = np.maximum(np.floor(low), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high), pixels.shape[1::-1]).astype(int)
    picture = Image.fromarray(pixels[y0:y1, x0:x1])
    picture.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "jpeg", quality=_QUALITY, optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    width = px_to_um((x1 - x0) * down, section.mpp) / 1000
    about = f"H&E of section {section.name}"
    return tag(
        "figure",
        field(
            "img", src=f"data:image/jpeg;base64,{data}", alt=about, width=picture.width, height=picture.height
        ),
        tag("figcaption", f"{about}: the field of the maps, {width:.1f} mm wide."),
    )
