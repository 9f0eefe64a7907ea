"""What a case exercises, in words; and where an output departs from the expected one."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from walloc_ref.conform import compare
from walloc_ref.conform.stages import STAGES
from walloc_ref.conform.suite import Case, Suite

WORST = 5
"""Elements, channels or bands that are listed."""

MAP_SIZE = 48
"""Characters of a map's side."""

SHADES = " .:+*#"
"""From no difference to the largest."""


def explain(suite: Suite, case: Case) -> str:
    """A case in words."""
    manifest = suite.manifest
    stage = STAGES[case.op, case.stage]
    lines = [case.id, "", f"Operation {case.op}, stage {case.stage}: {stage.text}."]
    lines.append(
        f"Input      {case.input}{_shape(suite, case.input)}: {manifest['signals'].get(case.signal, case.signal)}."
    )
    if case.note:
        lines.append(f"           {case.note}.")
    if case.rejects:
        lines.append(f"Expected   rejection, for any reason: {manifest['faults'][case.fault]} ({case.fault}).")
    else:
        assert case.output is not None
        lines.append(f"Expected   {case.output}{_shape(suite, case.output)}, from {manifest['origins'][case.origin]}.")
        how = manifest["comparisons"][case.compare]
        tolerance = f", tolerance {how['tolerance']:.3g}" if "tolerance" in how else ""
        lines.append(f"Compared   {how['kind']}{tolerance}: {how['reason']}.")
    if case.model is not None:
        entry = manifest["models"][case.model]
        config = json.dumps(entry["config"]) if entry["config"] else "not a valid one"
        lines.append(f"Model      {entry['file']} ({entry['source']}): {config}.")
    if case.parameters:
        lines.append("Parameters " + ", ".join(f"{key}={value}" for key, value in case.parameters.items()))
    lines += [f"Flag       {flag}: {manifest['flags'][flag]}." for flag in case.flags]
    if case.margin is not None:
        lines.append(f"Margin     {case.margin:.3g} at least, from the nearest tie.")
    if case.binary32:
        seen = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in case.binary32.items()
        )
        lines.append(f"Binary32   PyTorch was seen to deviate: {seen}.")
    role = "required by" if case.required else "helps to find errors for"
    lines.append(f"Levels     {role} {', '.join(case.levels)}.")
    lines.append(f"Clauses    {', '.join(case.clauses)} of SPEC.md.")
    return "\n".join(lines)


def diff(suite: Suite, case: Case, actual: bytes) -> tuple[str, NDArray[np.uint8] | None]:
    """Where an output departs.

    Returns
    -------
    text : str
    image : uint8, shape (H, W), or None
        The largest difference over all channels at each place, white where it is largest; for arrays with two or more axes.
    """
    lines = [f"{case.id}: {STAGES[case.op, case.stage].text}"]
    if case.rejects:
        return "\n".join([*lines, "This input is to be rejected; any output is wrong."]), None
    try:
        compare.check(case, suite, actual)
    except compare.Different as difference:
        lines.append(f"Different: {difference}.")
    else:
        return "\n".join([*lines, "No difference, within the tolerance of this case."]), None
    assert case.output is not None
    expected = suite.read(case.output)
    if suite.manifest["comparisons"][case.compare]["kind"] == "digest":
        return "\n".join([*lines, "The suite holds no more of this output than its SHA-256."]), None
    if not case.output.endswith(".npy"):
        lines += _bytes(expected, actual)
        return "\n".join(lines), None
    try:
        wanted, found = compare.read_array(expected), compare.read_array(actual)
        compare.same_type(wanted, found)
    except compare.Different:
        return "\n".join(lines), None
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    distance[~np.isfinite(distance)] = np.inf
    lines += _worst(wanted, found, distance)
    channels_last = case.op == "decode" and case.stage in ("samples", "stream")
    lines += _parts(distance, last=channels_last)
    lines += [f"Hint: {hint}" for hint in _hints(a, b, distance, last=channels_last)]
    image = _image(distance, channels_last=channels_last)
    if image is not None:
        lines += ["Map, darkest where it is furthest off:", *_map(image)]
    return "\n".join(lines), image


def _shape(suite: Suite, name: str) -> str:
    """Shape and type of an array file."""
    if not name.endswith(".npy"):
        return ""
    array = compare.read_array(suite.read(name))
    return f", {array.dtype} {'x'.join(map(str, array.shape))}"


def _bytes(expected: bytes, actual: bytes) -> list[str]:
    """The first difference of two byte strings, with what stands around it."""
    shared = min(len(expected), len(actual))
    at = next((i for i in range(shared) if expected[i] != actual[i]), shared)
    around = slice(max(0, at - 8), at + 8)
    return [
        f"First difference at byte {at} of {len(expected)} expected, {len(actual)} found.",
        f"  expected … {expected[around].hex(' ')} …",
        f"  found    … {actual[around].hex(' ')} …",
    ]


def _worst(expected: NDArray, actual: NDArray, distance: NDArray[np.float64]) -> list[str]:
    """The elements that are furthest off."""
    order = np.argsort(-distance.reshape(-1), kind="stable")[:WORST]
    places = [tuple(int(i) for i in np.unravel_index(k, distance.shape)) for k in order if distance.reshape(-1)[k] > 0]
    return [f"  at {list(place)}: {actual[place]!s}, expected {expected[place]!s}" for place in places]


def _parts(distance: NDArray[np.float64], *, last: bool) -> list[str]:
    """Channels, planes or bands that differ, and the box that holds all differences."""
    if distance.ndim < 2:
        return []
    parts = np.moveaxis(distance, -1, 0) if last and distance.ndim == 3 else distance
    wrong = [i for i in range(len(parts)) if (parts[i] > 0).any()]
    lines = [
        f"{len(wrong)} of {len(parts)} planes differ: {', '.join(map(str, wrong[:12]))}{' …' if len(wrong) > 12 else ''}"
    ]
    where = np.argwhere((parts > 0).any(axis=0))
    low, high = where.min(axis=0), where.max(axis=0)
    lines.append(
        f"All differences lie in {' x '.join(f'{a}…{b}' for a, b in zip(low, high))}"
        f" of {' x '.join(map(str, parts.shape[1:]))}."
    )
    return lines


def _hints(
    expected: NDArray[np.float64], actual: NDArray[np.float64], distance: NDArray[np.float64], *, last: bool
) -> list[str]:
    """What the difference looks like."""
    hints = []
    if not np.isfinite(actual).all():
        hints.append("there are values that are no finite numbers; look for a division by zero or an overflow in exp")
        return hints

    def same(other: NDArray[np.float64]) -> bool:
        return other.shape == actual.shape and np.allclose(other, actual, rtol=1e-9, atol=1e-9)

    if not (actual != 0).any():
        hints.append("the output is all zeros")
    for axis in range(expected.ndim):
        if same(np.flip(expected, axis)):
            hints.append(f"it is the expected output backwards along axis {axis}")
        for step in (-1, 1):
            if expected.shape[axis] > 1 and same(np.roll(expected, step, axis)):
                hints.append(f"it is the expected output, shifted by {step} along axis {axis}")
    if expected.ndim >= 2 and same(expected.swapaxes(-1, -2)):
        hints.append("it is the expected output with its last two axes swapped")
    if expected.ndim >= 2 and expected.size == actual.size and same(expected.swapaxes(-1, -2).reshape(expected.shape)):
        hints.append("its numbers are in the order of the last two axes swapped")
    if expected.ndim == 3 and len(expected) % 4 == 0:
        order = np.arange(len(expected)).reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(-1)
        if same(expected[order]):
            hints.append("bands LH and HL of the last level are swapped (4.4)")
    difference = actual - expected
    if np.ptp(difference) < 1e-9 * max(1.0, np.abs(expected).max()):
        hints.append(f"every value is off by {difference.flat[0]:.6g}")
    usable = np.abs(expected) > 1e-6
    if usable.sum() > 4:
        ratio = actual[usable] / expected[usable]
        if np.ptp(ratio) < 1e-6 * max(1e-12, np.abs(ratio).max()):
            hints.append(f"every value is {np.median(ratio):.9g} times the expected one")
    across = distance.max(axis=-1 if last else 0) if distance.ndim == 3 else distance
    if across.ndim == 2 and min(across.shape) > 4 and not (across[2:-2, 2:-2] > 0).any():
        hints.append("only the border differs: look at padding, extension or cropping")
    if 0 < distance.max() <= 1 and expected.size > 1 and (expected == np.rint(expected)).all():
        hints.append("integers differ by one at most: look at rounding, or at arithmetic in binary32")
    return hints


def _image(distance: NDArray[np.float64], *, channels_last: bool) -> NDArray[np.uint8] | None:
    """Largest difference over the channels at each place, scaled to 0 … 255."""
    if distance.ndim < 2 or distance.size == 0:
        return None
    flat = distance.max(axis=-1 if channels_last else 0) if distance.ndim > 2 else distance
    while flat.ndim > 2:  # of a volume the largest along depth
        flat = flat.max(axis=0)
    finite = flat[np.isfinite(flat)]
    top = finite.max() if finite.size and finite.max() > 0 else 1.0
    scaled = np.sqrt(np.minimum(flat / top, 1))  # the root shows small differences
    return np.where(np.isfinite(flat), np.ceil(255 * scaled), 255).astype(np.uint8)


def _map(image: NDArray[np.uint8]) -> list[str]:
    """The image in characters."""
    rows = np.array_split(np.arange(image.shape[0]), min(MAP_SIZE // 2, image.shape[0]))
    columns = np.array_split(np.arange(image.shape[1]), min(MAP_SIZE, image.shape[1]))
    lines = []
    for r in rows:
        tops = [int(image[r[0] : r[-1] + 1, c[0] : c[-1] + 1].max()) for c in columns]
        lines.append("  |" + "".join(SHADES[-(-top * (len(SHADES) - 1) // 255)] for top in tops) + "|")
    return lines
