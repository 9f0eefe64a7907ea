"""imageio v3: `iio.imread("x.wlc")` and `iio.imwrite("x.wlc", array, quality=40)`.

import walloc_ref.adapters.imageio  # registers; the codec itself is imported when a file is opened
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from imageio import config
from imageio.config.extensions import FileExtension
from imageio.config.plugins import PluginConfig
from imageio.core.request import InitializationError, IOMode, Request
from imageio.core.v3_plugin_api import ImageProperties, PluginV3

from walloc_ref.adapters import encode_image

NAME = "walloc"
"""imageio's name of the plugin."""

MAGIC = b"\x89WLC"
"""First bytes of a stream (SPEC.md 10.1)."""


class WlcPlugin(PluginV3):
    """One image, or volume, in a `.wlc` stream."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.mode.io_mode == IOMode.read:
            if request.get_file().read(len(MAGIC)) != MAGIC:
                raise InitializationError("not a WaLLoC stream")
        elif request.extension != ".wlc":
            raise InitializationError("not a name that ends in .wlc")

    def _data(self) -> bytes:
        file = self.request.get_file()
        file.seek(0)
        return file.read()

    def read(self, *, index: int | None = None, region: Any = None) -> np.ndarray:
        """The samples; `region` as in `walloc_ref.decode`. A stream holds one image: index 0, or none."""
        import walloc_ref

        if index not in (None, 0, ...):
            raise IndexError(f"index {index}: a stream holds one image")
        return walloc_ref.decode(self._data(), region=region)

    def iter(self, **options: Any) -> Iterator[np.ndarray]:
        """The one image."""
        yield self.read(**options)

    def write(self, ndimage: Any, *, model: str | None = None, **options: Any) -> bytes | None:
        """Encode one image; keywords as in `Codec.encode`."""
        self.request.get_file().write(encode_image(np.asarray(ndimage), model, **options))
        return None

    def properties(self, index: int | None = 0) -> ImageProperties:
        """Shape and type, without decoding."""
        import walloc_ref

        head = walloc_ref.info(self._data())
        shape = (*head.sizes, *((head.channels,) if head.channels > 1 else ()))
        dtype = np.dtype({"u8": "u1", "u16": "u2", "s16": "i2", "f32": "f4"}[head.sample_format])
        return ImageProperties(shape=shape, dtype=dtype, n_images=1, is_batch=False)

    def metadata(self, index: int | None = 0, exclude_applied: bool = True) -> dict[str, Any]:
        """What `walloc_ref.info` says."""
        from dataclasses import asdict

        import walloc_ref

        return asdict(walloc_ref.info(self._data()))


def register() -> None:
    """Make the plugin known to imageio; done by importing this module, and harmless twice."""
    plugin = PluginConfig(name=NAME, class_name="WlcPlugin", module_name=__name__)
    plugin.install_name = "walloc-ref"
    config.known_plugins[NAME] = plugin
    extension = FileExtension(extension=".wlc", priority=[NAME], name="WaLLoC stream")
    if not any(known.priority == [NAME] for known in config.known_extensions.get(".wlc", [])):
        config.extension_list.append(extension)
        config.known_extensions.setdefault(".wlc", []).insert(0, extension)


register()
