"""Writes what `walloc-ref eval` measured into the README and the models' cards, so that no figure is copied by hand.

    walloc-ref eval KODAK --against webp,jpeg,jxl,jpeg2000,avif --beside webp --steps 3.6,2.8,2,1.4,0.7 \
        --steps-of rgb_2x=8.8,7.5,5.2,3.6,2.5,1.7,1.2,0.9,0.7 --steps-of rgb_1x=4.6,3.8,3.2,2.6,2.1,1.7,1.3 \
        --json weights/kodak.json --plot weights/kodak.png
    walloc-ref eval TRACKS --against opus,mp3 --steps 8,5.6,4,2.8,2,1.4,0.7 --json weights/music.json
    walloc-ref eval VOLUMES --halves volume --json …, and so on: the lists of results together are weights/modalities.json
    python weights/result_tables.py

Each text has a place for its table, between two comments; everything else stays as it is. A test holds the tables equal
to the JSON files, and the models in those to the weights beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from walloc_ref.measure import modalities
from walloc_ref.measure.evaluate import bd_table, filled, format_table, step_table, title

FOLDER = Path(__file__).resolve().parent
RESULTS = ("kodak.json", "music.json")
BEGIN, END = "<!-- measured: written by weights/result_tables.py -->", "<!-- end -->"
MODALITIES = "modalities.json"
"""What was measured on parts of signals by models of the other parts, and stands in the page of the same name."""
FITTED = {"mr_1x": "seg3d_MR", "ambisonics_8x": "BF_rec1"}
"""Models that are fitted in closed form to all of it, and the result by models of parts that their cards show."""
OTHERS = {"image": ("webp",), "audio": ("opus", "mp3")}
"""The other codecs that models stand beside in the README."""


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def points(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of a result, by falling rate."""
    return sorted((p for p in result["points"] if p["model_id"]), key=lambda p: -p["ratio"])


def beside(result: dict[str, Any], point: dict[str, Any], codec: str) -> dict[str, Any]:
    """What another codec measures at the same bytes as a model."""
    return next(
        p
        for p in result["points"]
        if (p["codec"], p["same_bytes_as"], p["grey"]) == (codec, point["codec"], point["grey"])
    )


def compared(result: dict[str, Any], point: dict[str, Any], codec: str) -> dict[str, Any]:
    """A model against another codec's curve; empty where there is no curve."""
    return next(
        (c for c in result["comparisons"] if (c["model"], c["against"]) == (point["codec"], codec)),
        {"bd_rate_percent": None, "bd_psnr_db": None},
    )


def bd_rate(result: dict[str, Any], point: dict[str, Any], codec: str) -> str:
    """BD-rate of a model over its steps, and the range that it is taken over."""
    curve = next((c for c in result.get("curves", ()) if c["model"] == point["codec"]), None)
    entry = curve["against"].get(codec, {}).get("psnr") if curve else None
    if entry is None or entry["bd_rate_percent"] is None:
        return "–"
    return f"{entry['bd_rate_percent']:+.1f} %, {entry['from']:.1f} to {entry['to']:.1f} dB"


def readme_table(result: dict[str, Any]) -> str:
    """All models of a kind: the columns of the authors' table but speeds, and another codec at the same bytes.

    Speeds depend on what else the machine does; `bench.json` has them, taken side by side.
    """
    image = result["kind"] == "image"
    others = OTHERS[result["kind"]]
    header = ["model", "latents", "reduction", "ratio", "PSNR dB", "linear dB"] + ["SSIM", "MS-SSIM"] * image
    rows = []
    for p in points(result):
        c = p["config"]
        shape = f"{c['latent_dim']} of {c['channels'] * 2 ** (c['J'] * (2 if image else 1))}"
        row = [f"`{p['codec']}`", shape, f"{p['dimensionality_reduction']:.1f}", f"{p['ratio']:.1f}:1"]
        row += [number(p["psnr"], 2), number(p["linear_psnr"], 2)]
        row += [number(p[k], 3) for k in ("ssim", "ms_ssim") if image]
        for other in others:
            o = beside(result, p, other)
            row += [number(o["psnr"], 2)] + [number(o["ms_ssim"], 3)] * image
        rate = number(compared(result, p, others[0])["bd_rate_percent"], 1, sign=True)
        row += ([rate + " %"] if rate != "–" else [rate]) * image
        row += [bd_rate(result, p, other) for other in others]
        rows.append(row)
    for other in others:
        header += [f"{title(other)}, same bytes: dB"] + ["MS-SSIM"] * image
    header += [f"bytes against {title(others[0])}, same dB"] * image
    header += [f"BD-rate over steps against {title(other)}" for other in others]
    return format_table(header, rows, markdown=True)


def card_table(result: dict[str, Any], point: dict[str, Any]) -> str:
    """One model: its identity, and everything at the same bytes, file by file."""
    image = result["kind"] == "image"
    what = "images" if image else "clips"
    grey = ", their luma" if point["grey"] else ""
    text = f"Weights `{point['model_id']}`, walloc_ref {result['version']}, {len(result['items'])} {what}{grey};\n"
    text += "bytes are those of complete files, PSNR is the mean over files; linear: the same symbols, decoded by the\n"
    text += "transpose of the encoder.\n\n"
    others = [p for p in result["points"] if p["same_bytes_as"] == point["codec"] and p["grey"] == point["grey"]]
    header = ["", "bytes", "ratio", "PSNR dB", "linear dB"]
    measures = ("ssim", "ssim_reduced", "ms_ssim") if image else ("ssdr", "srdr")
    header += ["SSIM", "SSIM reduced", "MS-SSIM", "bytes at this model's PSNR"] if image else ["SSDR dB", "SRDR dB"]
    rows = []
    for p in (point, *others):
        row = [p["codec"] if p is point else f"{title(p['codec'])}, same bytes", str(p["bytes"]), f"{p['ratio']:.1f}:1"]
        row += [
            number(p["psnr"], 2),
            number(p["linear_psnr"], 2),
            *(number(p.get(k), 4 if image else 2) for k in measures),
        ]
        if image:
            rate = None if p is point else compared(result, point, p["codec"])["bd_rate_percent"]
            row.append("–" if rate is None else f"{100 / (1 + rate / 100) - 100:+.1f} %")
        rows.append(row)
    text += format_table(*filled(header, rows), markdown=True)
    for curve in result.get("curves", ()):
        if curve["model"] == point["codec"]:
            text += "\n\nOver steps of the quantiser:\n\n" + step_table(curve, image, markdown=True)
            rates = bd_table(curve, markdown=True)
            text += "\n\nBD-rate, and the range that both curves have:\n\n" + rates if rates else ""
    if not image:
        text += "\n\n" + format_table(
            ["track", "ratio", "PSNR dB", "linear dB", *(f"{title(o['codec'])} dB" for o in others)],
            [
                [
                    m["item"],
                    f"{_raw(result, i) / m['bytes']:.1f}:1",
                    number(m["psnr"], 2),
                    number(m["linear_psnr"], 2),
                    *(number(o["items"][i]["psnr"], 2) for o in others),
                ]
                for i, m in enumerate(point["items"])
            ],
            markdown=True,
        )
    return text


def _raw(result: dict[str, Any], i: int) -> int:
    """Bytes of an item of audio as 16-bit samples."""
    shape = result["items"][i]["shape"]
    return 2 * shape[0] * shape[1]


def fitted_table(result: dict[str, Any], identity: str) -> str:
    """The card's part of a model in closed form: its identity, and what models of parts of its material measure."""
    return f"Weights `{identity}`.\n\n" + modalities.markdown(result)


def written(text: str, tables: list[str]) -> str:
    """The text with its places filled, in order.

    Raises
    ------
    ValueError
        As many places as tables are not there.
    """
    parts = text.split(BEGIN)
    if len(parts) != len(tables) + 1:
        raise ValueError(f"places for tables: {len(parts) - 1}, expected {len(tables)}")
    for i, new in enumerate(tables):
        parts[i + 1] = f"\n\n{new}\n\n{END}{parts[i + 1].split(END, 1)[1]}"
    return BEGIN.join(parts)


def texts() -> dict[Path, str]:
    """The README and the cards as they should be."""
    results = [json.loads((FOLDER / name).read_text(encoding="utf-8")) for name in RESULTS]
    wanted = {FOLDER.parent / "README.md": [readme_table(result) for result in results]}
    for result in results:
        for point in points(result):
            wanted[FOLDER / f"{point['codec']}.md"] = [card_table(result, point)]
    by_name = {result["name"]: result for result in json.loads((FOLDER / MODALITIES).read_text(encoding="utf-8"))}
    for name, subject in FITTED.items():
        with safe_open(FOLDER / f"{name}.safetensors", "np") as file:
            identity = file.metadata()["walloc_ref.id"]
        wanted[FOLDER / f"{name}.md"] = [fitted_table(by_name[subject], identity)]
    wanted[(FOLDER / MODALITIES).with_suffix(".md")] = [modalities.markdown(result) for result in by_name.values()]
    return {path: written(path.read_text(encoding="utf-8"), tables) for path, tables in wanted.items()}


def main() -> None:
    """Rewrite them."""
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
