"""What belongs to samples beside their values: where they lie in space, at which wavelengths, in which units.

It travels as a JSON object in the stream (METADATA, SPEC.md 10.15), is written by whoever encoded and so checked by
whoever decodes: known keys only, of the right form, everything finite. Keys are the names of `Geometry`'s fields.

Sample values are never changed by any of it: where a file has a slope and an intercept (computed tomography, for
instance), the stored integers are coded, and slope and intercept stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from walloc_ref.errors import BadSamples, printable

MAX_TEXT, MAX_ITEMS = 1 << 16, 1 << 12
"""Longest text, and most numbers, names or fields of a list or a header."""

MAX_WORDS = 72
"""Characters of a field in a description."""

MAX_MASK = (1 << 32) - 1
"""A channel mask has 32 bits."""

FORMATS_WITH_HEADERS = ("nifti", "envi", "geotiff")
"""Kinds of files some of whose header fields are kept as they are, for a file of the same kind."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a file says about its samples.

    Attributes
    ----------
    source : str, optional
        The kind of file that it comes from.
    spacing : tuple of float, optional
        Distance between samples along each spatial axis, in the order of the array: (depth, rows, columns).
    units : str, optional
        Of `spacing` and `affine`.
    affine : 4 rows of 4 numbers, optional
        Takes (x, y, z, 1), the numbers of column, row and depth position, to a place, in `units`. In medicine its axes
        point to the right, to the front and to the head of the patient (RAS+, as NIfTI has it).
    rescale : tuple of 2 floats, optional
        Slope and intercept: what is meant is slope·sample + intercept.
    wavelengths, bandwidths : tuple of float, optional
        Centre and width of each channel, in `wavelength_units`.
    wavelength_units : str, optional
    bands : tuple of str, optional
        Name of each channel.
    ignore : float, optional
        Samples of this value mean that there is none.
    channel_mask : int, optional
        Loudspeakers of a WAV's channels, as its header has them.
    ambisonic : bool, optional
        Whether a WAV's channels are a sound field in B-format, not loudspeakers.
    header : mapping
        Kind of file → name of a header field → value, for what has no meaning here but belongs to such a file.
    """

    source: str | None = None
    spacing: tuple[float, ...] | None = None
    units: str | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    rescale: tuple[float, ...] | None = None
    wavelengths: tuple[float, ...] | None = None
    bandwidths: tuple[float, ...] | None = None
    wavelength_units: str | None = None
    bands: tuple[str, ...] | None = None
    ignore: float | None = None
    channel_mask: int | None = None
    ambisonic: bool | None = None
    header: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the fields that say something, the source apart."""
        return tuple(name for name in self.to_json() if name != "source")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without what is unknown."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: _plain(value) for name, value in values.items() if value is not None}
        return plain if plain["header"] else {name: value for name, value in plain.items() if name != "header"}


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dictionaries."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def from_json(metadata: Mapping[str, Any] | None) -> Geometry:
    """What a stream's metadata say; unknown keys are left out.

    Raises
    ------
    BadSamples
        A key that is known has a value of another form.
    """
    metadata = metadata or {}
    found: dict[str, Any] = {}
    for name, (check, wanted) in _FORMS.items():
        value = metadata.get(name)
        if value is None:
            continue
        if not check(value):
            raise BadSamples(f"metadata.{name}", value, f"{wanted}; or --no-metadata")
        found[name] = _frozen(value)
    header = metadata.get("header")
    if header is not None:
        found["header"] = _header(header)
    return Geometry(**found)


def _frozen(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _header(header: Any) -> dict[str, dict[str, Any]]:
    """Header fields: of each kind of file a flat object of texts, numbers and lists of numbers."""
    if not isinstance(header, Mapping):
        raise BadSamples("metadata.header", header, "an object; or --no-metadata")
    found: dict[str, dict[str, Any]] = {}
    for kind in FORMATS_WITH_HEADERS:
        entries = header.get(kind, {})
        if not isinstance(entries, Mapping) or len(entries) > MAX_ITEMS:
            raise BadSamples(f"metadata.header.{kind}", entries, "an object of header fields; or --no-metadata")
        for name, value in entries.items():
            if not (_is_text(name) and (_is_text(value) or _is_number(value) or _is_numbers(value))):
                raise BadSamples(f"metadata.header.{kind}.{name}", value, "text or numbers; or --no-metadata")
        if entries:
            found[kind] = dict(entries)
    return found


def _is_text(value: Any) -> bool:
    """Text of one line or more, none of whose characters ends it in a file."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value


def _is_number(value: Any) -> bool:
    """A finite number; True is none."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float comes near to
        return False


def _is_numbers(value: Any) -> bool:
    """A list of numbers."""
    return isinstance(value, (list, tuple)) and 0 < len(value) <= MAX_ITEMS and all(map(_is_number, value))


def _is_spacing(value: Any) -> bool:
    """Distances along two or three axes."""
    return _is_numbers(value) and len(value) in (2, 3) and min(value) > 0


def _is_affine(value: Any) -> bool:
    """Four rows of four numbers."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(_is_numbers(row) and len(row) == 4 for row in value)
    )


def _is_names(value: Any) -> bool:
    """A list of texts."""
    return isinstance(value, (list, tuple)) and 0 < len(value) <= MAX_ITEMS and all(map(_is_text, value))


def _is_mask(value: Any) -> bool:
    """A number of 32 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_MASK


_NUMBERS = (_is_numbers, f"a list of up to {MAX_ITEMS} finite numbers")
_TEXT = (_is_text, f"text of up to {MAX_TEXT} characters")
_FORMS = {
    "source": _TEXT,
    "spacing": (_is_spacing, "two or three numbers above 0"),
    "units": _TEXT,
    "affine": (_is_affine, "four rows of four finite numbers"),
    "rescale": (lambda value: _is_numbers(value) and len(value) == 2, "two finite numbers"),
    "wavelengths": _NUMBERS,
    "bandwidths": _NUMBERS,
    "wavelength_units": _TEXT,
    "bands": (_is_names, f"a list of up to {MAX_ITEMS} texts"),
    "ignore": (_is_number, "a finite number"),
    "channel_mask": (_is_mask, "a whole number of 32 bits"),
    "ambisonic": (lambda value: isinstance(value, bool), "true or false"),
}
"""Form of each field in JSON, and its words."""


def shifted(geometry: Geometry, start: tuple[int, ...]) -> Geometry:
    """Of a region that starts at these samples, in the order of the array: what places the first sample moves along.

    Header fields go, because some of them say where the whole began.
    """
    from dataclasses import replace

    affine = geometry.affine
    if affine is not None:
        z, y, x = (0, *start)[-3:]
        moved = [(*row[:3], row[0] * x + row[1] * y + row[2] * z + row[3]) for row in affine[:3]]
        affine = (*moved, affine[3])
    return replace(geometry, affine=affine, header={})


def described(geometry: Geometry) -> dict[str, str]:
    """What is known, in a few words for people, by the names of the fields."""
    found: dict[str, str] = {}
    for name, value in geometry.to_json().items():
        if name == "header":
            words = ", ".join(f"{len(entries)} fields of {kind}" for kind, entries in value.items())
        elif name == "affine":
            words = f"the first sample at {', '.join(f'{row[3]:g}' for row in value[:3])}"
        elif isinstance(value, list) and len(value) > 4:
            words = f"{len(value)}, {_word(value[0])} to {_word(value[-1])}"
        elif isinstance(value, list):
            words = ", ".join(map(_word, value))
        else:
            words = f"{value:#x}" if name == "channel_mask" else _word(value)
        found[name.replace("_", " ")] = printable(words, MAX_WORDS)
    return found


def _word(value: Any) -> str:
    """A number, a text or a truth."""
    return f"{value:g}" if isinstance(value, float) else str(value)
