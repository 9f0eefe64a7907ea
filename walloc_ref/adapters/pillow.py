"""Pillow: `Image.open("x.wlc")` and `image.save("x.wlc", quality=40)`.

    import walloc_ref.adapters.pillow  # registers; the codec itself is imported when an image is loaded

A file is recognised by its first bytes and its size is known at once; samples are decoded when they are first needed.
Saving takes the keywords of `Codec.encode` (quality, ratio, max_bytes, psnr, step, certify) and `model`.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

from walloc_ref.adapters import RATES, encode_image

FORMAT = "WLC"
"""Pillow's name of the format."""

MAGIC = b"\x89WLC"
"""First bytes of a stream (SPEC.md 10.1)."""

OPTIONS = (*RATES, "step", "window", "certify")
"""Keywords of `save` that go to the encoder."""


class WlcImageFile(ImageFile.ImageFile):
    """An image in a `.wlc` stream, decoded when it is first loaded."""

    format = FORMAT
    format_description = "WaLLoC stream"

    def _open(self) -> None:
        """Read the header. Raises SyntaxError, as Pillow wants it, for what it cannot show."""
        from walloc_ref.errors import WallocError
        from walloc_ref.stages import container

        assert self.fp is not None
        data = self.fp.read()
        try:
            stream = container.read(data, keep_going=True)
        except WallocError as error:
            raise SyntaxError(str(error)) from error
        head = stream.header
        mode = {("u8", 1): "L", ("u8", 3): "RGB", ("u16", 1): "I;16"}.get((head.sample_format, head.channels))
        if head.kind != "image" or mode is None:
            what = f"{head.kind}, {head.channels} channels, {head.sample_format}"
            raise SyntaxError(f"not an image that Pillow has a mode for: {what}")
        self._size, self._mode = (head.sizes[1], head.sizes[0]), mode
        self._stream: bytes | None = data
        if stream.icc_profile is not None:
            self.info["icc_profile"] = stream.icc_profile
        if stream.exif is not None:
            self.info["exif"] = stream.exif
        self.tile: list[Any] = []

    def load(self) -> Any:
        """Decode, once. Raises OSError for a damaged stream, as Pillow's other readers do."""
        data = getattr(self, "_stream", None)
        if data is not None:
            import walloc_ref

            try:
                samples = walloc_ref.decode(data)
            except walloc_ref.WallocError as error:
                raise OSError(str(error)) from error
            self.im = Image.fromarray(samples).im
            self._stream = None
        return super().load()


def save(image: Image.Image, file: Any, name: str | bytes) -> None:
    """Encode an image of mode L, RGB or I;16. Raises OSError for any other, as Pillow's writers do."""
    import numpy as np

    import walloc_ref

    if image.mode not in ("L", "RGB", "I;16"):
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: convert to L or RGB first")
    wanted = image.encoderinfo
    options = {key: wanted[key] for key in OPTIONS if key in wanted}
    try:
        data = encode_image(
            np.asarray(image),
            wanted.get("model"),
            icc_profile=wanted.get("icc_profile", image.info.get("icc_profile")),
            exif=wanted.get("exif"),
            **options,
        )
    except walloc_ref.WallocError as error:
        raise OSError(str(error)) from error
    file.write(data)


def register() -> None:
    """Make the format known to Pillow; done by importing this module, and harmless twice."""
    Image.register_open(FORMAT, WlcImageFile, lambda prefix: prefix.startswith(MAGIC))
    Image.register_save(FORMAT, save)
    Image.register_extension(FORMAT, ".wlc")
    Image.register_mime(FORMAT, "image/x-wlc")


register()
