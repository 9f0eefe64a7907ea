"""The costliest inputs that are known, under the limits that hold by default: seconds and peak memory of each command.

    python tests/worst.py

Every row is one process of the command line. What is refused is refused early; what is accepted costs in proportion to
what it declares, at the rates of honest files, and a smaller `--max-samples` bounds that. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models
import numpy as np
import pickles

import walloc_ref
from walloc_ref import model as weights
from walloc_ref.stages import container

Case = tuple[str, list[str], bytes]
"""What it is; words of the command, `IN` for the input; the input."""


def stream_of_zeros(codec: walloc_ref.Codec, sizes: tuple[int, ...], **options: object) -> bytes:
    """A stream of this size whose symbols are all 0: as few bytes as the coder makes of so many."""
    symbols = np.zeros((codec.config.planes, *codec.config.latent_sizes(sizes)), np.int16)
    return codec.encode_symbols(symbols, sizes, **options)  # type: ignore[arg-type]


def without_slices(data: bytes) -> bytes:
    """A stream whose payloads were cut off."""
    stream = container.read(data)
    return data[: len(data) - sum(map(len, stream.slices))]


def png(width: int, height: int) -> bytes:
    """A grey PNG of zeros, its rows compressed a thousandfold."""
    squeeze, total, block = zlib.compressobj(9), (width + 1) * height, 1 << 24  # a filter byte a row, and all are 0
    parts = [squeeze.compress(bytes(min(block, total - start))) for start in range(0, total, block)]
    parts.append(squeeze.flush())

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(parts)) + chunk(b"IEND", b"")


def repeated_dictionary(count: int) -> bytes:
    """A checkpoint whose pickle sets one dictionary of so many keys on as many objects."""
    many = pickles.value({f"{i}": None for i in range(count)})
    made = pickles.global_("a", "B") + b")\x81"
    again = (made + b"h\0b0") * count
    return pickles.archive(b"\x80\x02" + many + b"q\0" + made + b"h\0b0" + again + b".", {})


def silent_wav(frames: int) -> bytes:
    """Silence, stereo, 16 bits."""
    size = 4 * frames
    head = (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 44100, 176400, 4, 16)
    )
    return head + b"data" + struct.pack("<I", size) + bytes(size)


def cases(folder: Path) -> Iterator[Case]:
    """All of them."""
    colour, audio = walloc_ref.load_model("rgb_4x"), walloc_ref.load_model("stereo_5x")
    attention = walloc_ref.Codec(models.tiny_model("Codec2D", channels=3, J=3, latent_dim=4, Nd=32, seed=3))
    (folder / "attention.safetensors").write_bytes(weights.save(attention.model))
    decode = ["decode", "IN", "out.png"]
    yield "12 megapixels of nothing, in windows", decode, stream_of_zeros(colour, (3000, 4000))
    yield "one row of 2 million pixels", decode, stream_of_zeros(colour, (1, 1 << 21))
    whole = stream_of_zeros(attention, (512 * 8, 256 * 8))
    parsed = container.read(whole)
    whole = container.write(replace(parsed, header=replace(parsed.header, window=0, context=0)))
    model = ["--model", str(folder / "attention.safetensors")]
    yield "131,072 positions that attention sees at once", [*decode, *model], whole
    yield (
        "12,000 by 12,000 pixels, slices missing, --keep-going",
        [*decode, "--keep-going"],
        without_slices(stream_of_zeros(colour, (4000, 4000))),
    )
    yield "an hour of silence", ["decode", "IN", "out.wav"], stream_of_zeros(audio, (3600 * 44100,))
    yield "PNG of 1 by 300 million pixels", ["encode", "IN", "out.wlc"], png(1, 300_000_000)
    yield "PNG of 300 million by 1 pixels", ["encode", "IN", "out.wlc"], png(300_000_000, 1)
    yield "PNG of 100 megapixels of nothing", ["encode", "IN", "out.wlc"], png(10_000, 10_000)
    yield "two hours of silence", ["encode", "IN", "out.wlc"], silent_wav(2 * 3600 * 44100)
    yield "a header alone that declares 2^40 samples", ["info", "IN"], stream_of_zeros(colour, (8, 8))[:40]
    yield (
        "a checkpoint that applies 200,000 keys 200,000 times",
        ["import", "IN", "m.safetensors"],
        repeated_dictionary(200_000),
    )


def measured(words: list[str], folder: Path) -> tuple[int, float, float]:
    """Exit code, seconds and peak megabytes of one process of the command line."""
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        os.execv(sys.executable, [sys.executable, "-m", "walloc_ref.cli", *words])
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="rows whose text contains this")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    print("| input | its bytes | command | exit code | seconds | peak MB |\n| --- | ---: | --- | ---: | ---: | ---: |")
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (text, words, data) in enumerate(cases(folder)):
            if options.only not in text:
                continue
            place = folder / f"{number}{'.wav' if data[:4] == b'RIFF' else ''}"
            place.write_bytes(data)
            code, seconds, megabytes = measured([str(place) if w == "IN" else w for w in words], folder)
            shown = words[0] + (" --keep-going" if "--keep-going" in words else "")
            print(f"| {text} | {len(data)} | {shown} | {code} | {seconds:.1f} | {megabytes:.0f} |", flush=True)
            failed |= code not in (0, 1, 2, 3)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
