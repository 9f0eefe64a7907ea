"""The command line. This module alone opens files and prints.

Exit codes: 0 done, 1 a check failed, 2 usage, 3 bad input. Errors are one line on the standard error that names the field,
the value and the limit. Output files appear whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import walloc_ref
from walloc_ref.errors import BadSamples, UnreadableFile, WallocError
from walloc_ref.workers import Progress

DONE, CHECK_FAILED, USAGE, BAD_INPUT = 0, 1, 2, 3
"""Exit codes."""

PROGRESS_DELAY = 2.0
"""Seconds after which work that is not done shows its progress."""

PIPE = "-"
"""The name of the standard input and output."""

DEFAULT_MODELS = {"grey": ("gray_16x", "rgb_16x"), "colour": ("rgb_16x",), "audio": ("stereo_5x",)}
"""Models that are taken where none is named: the first one at hand."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except WallocError as error:
        print(f"walloc-ref: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left
        return BAD_INPUT
    except KeyboardInterrupt:
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(prog="walloc-ref", description="The reference codec for WaLLoC.")
    parser.add_argument("--version", action="version", version=f"walloc-ref {walloc_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = commands.add_parser("encode", help="a picture or a sound file to .wlc")
    encode.add_argument("input", help=f"PNG, JPEG, WebP, TIFF, BMP; WAV, FLAC, OGG, MP3; or {PIPE}")
    encode.add_argument("output", help=f"the .wlc file, or {PIPE}")
    encode.add_argument("--model", help="a name that `models` lists, or a .safetensors file")
    encode.add_argument("--certify", action="store_true", help="add the hash of the decoded samples (costs a decode)")
    encode.add_argument("--background", metavar="COLOUR", help="what transparent pixels are put on")
    encode.add_argument("--metadata", action="store_true", help="carry ICC profile and EXIF through")
    _add_limit(encode)
    encode.set_defaults(command=_encode)

    decode = commands.add_parser("decode", help=".wlc to a picture or a sound file")
    decode.add_argument("input", help=f"the .wlc file, or {PIPE}")
    decode.add_argument("output", help="its ending tells the format")
    decode.add_argument("--model", help="a .safetensors file, where the model is not bundled")
    decode.add_argument("--keep-going", action="store_true", help="fill damaged slices with zeros and exit with 1")
    _add_limit(decode)
    decode.set_defaults(command=_decode)

    info = commands.add_parser("info", help="what a .wlc file says of itself, without decoding")
    info.add_argument("file", help=f"the .wlc file, or {PIPE}")
    info.add_argument("--json", action="store_true", help="for programs")
    info.set_defaults(command=_info)

    models = commands.add_parser("models", help="the models at hand")
    models.set_defaults(command=_models)
    return parser


def _add_limit(parser: argparse.ArgumentParser) -> None:
    """The option that bounds what is decoded."""
    from walloc_ref.container import MAX_SAMPLES

    help_text = "largest number of samples that is accepted (default %(default)s)"
    parser.add_argument("--max-samples", type=int, default=MAX_SAMPLES, metavar="N", help=help_text)


def _encode(options: argparse.Namespace) -> int:
    """walloc-ref encode."""
    from walloc_ref import codec as codecs
    from walloc_ref import media

    started = time.perf_counter()
    data = read_file(options.input)
    picture = media.read_image(data, options.input, background=options.background, max_samples=options.max_samples)
    codec = codecs.load_model(options.model or _default_model("grey" if picture.samples.ndim == 2 else "colour"))
    with progress("encode") as tell:
        stream = codec.encode(
            picture.samples,
            certify=options.certify,
            icc_profile=picture.icc_profile if options.metadata else None,
            exif=picture.exif if options.metadata else None,
            progress=tell,
        )
    write_file(options.output, stream)
    seconds = time.perf_counter() - started
    facts = codecs.info(stream)
    size = "x".join(map(str, facts.sizes[::-1]))
    print(
        f"{options.output}: {len(stream)} bytes, {size}, {facts.ratio:.1f}:1, "
        f"{facts.bits_per_sample:.3f} bits per pixel, model {codec.name}, {seconds:.2f} s",
        file=sys.stderr if options.output == PIPE else sys.stdout,
    )
    return DONE


def _decode(options: argparse.Namespace) -> int:
    """walloc-ref decode."""
    from walloc_ref import codec as codecs
    from walloc_ref import container, media

    started = time.perf_counter()
    data = read_file(options.input)
    header, _, _ = container.read_head(data, max_samples=options.max_samples)
    if header.kind == "image":
        import numpy as np

        media.check_image_name(options.output, np.dtype("u1" if header.sample_format == "u8" else "u2"))
    codec = codecs.load_model(options.model) if options.model else None
    with progress("decode") as tell:
        result = codecs.decode_stream(
            data, codec=codec, max_samples=options.max_samples, keep_going=options.keep_going, progress=tell
        )
    picture = media.Picture(result.samples, result.icc_profile, result.exif)
    write_file(options.output, media.write_image(picture, options.output))
    for number in result.damaged:
        first, end = header.slice_bounds(number)
        where = f"latent positions {first} to {end - 1} of {header.latent_sizes[0]}"
        print(f"walloc-ref: slice {number}: damaged, filled with zeros; {where}", file=sys.stderr)
    seconds = time.perf_counter() - started
    if result.damaged:
        verified = "nothing verified"
    else:
        verified = "symbols and samples verified" if result.certified else "symbols verified"
    size = "x".join(map(str, header.sizes[::-1]))
    report = sys.stderr if options.output == PIPE else sys.stdout
    print(f"{options.output}: {size}, {verified}, model {result.model}, {seconds:.2f} s", file=report)
    return CHECK_FAILED if result.damaged else DONE


def _info(options: argparse.Namespace) -> int:
    """walloc-ref info."""
    from walloc_ref import codec as codecs
    from walloc_ref import model as models

    facts = codecs.info(read_file(options.file))
    name = models.name_of(facts.model_id) or "not at hand"
    size = "x".join(map(str, facts.sizes[::-1]))
    rows: dict[str, object] = {
        "kind": facts.kind,
        "samples": f"{size}, {facts.channels} channels, {facts.sample_format}",
        "model": f"{name}, identity {facts.model_id.hex()}…",
        "symbols": f"{facts.latent_dim} planes of {'x'.join(map(str, facts.latent_sizes))}, {facts.latent_bits} bits",
        "slices": f"{facts.slices} of {facts.slice_size} latent positions",
        "symbol hash": facts.symbol_hash.hex(),
        "certified": "yes, the decoded samples can be verified" if facts.certified else "no",
        "metadata": f"ICC profile {facts.icc_profile_bytes} bytes, EXIF {facts.exif_bytes} bytes",
        "bytes": facts.stream_bytes,
        "ratio": f"{facts.ratio:.1f}:1",
    }
    if facts.kind == "audio":
        rows["rate"] = f"{facts.rate} Hz, mean {facts.mean:g}, gain {facts.gain:g}"
        rows["bits per sample"] = f"{facts.bits_per_sample:.3f}"
    else:
        rows["bits per pixel"] = f"{facts.bits_per_sample:.3f}"
    if options.json:
        import json
        from dataclasses import asdict

        fields = {key: value.hex() if isinstance(value, bytes) else value for key, value in asdict(facts).items()}
        print(json.dumps(fields | {"model": name, "ratio": facts.ratio}, indent=2))
        return DONE
    for key, value in rows.items():
        print(f"{key:16}{value}")
    return DONE


def _models(options: argparse.Namespace) -> int:
    """walloc-ref models."""
    from walloc_ref import model as models

    print(f"{'name':16}{'kind':7}{'channels':>9}{'J':>3}{'latents':>9}{'bits':>5}{'parameters':>12}  identity")
    for name, path in models.available().items():
        model = models.load(path)
        c = model.config
        parameters = sum(tensor.size for tensor in model.tensors.values())
        numbers = f"{c.channels:>9}{c.J:>3}{c.planes:>9}{c.latent_bits:>5}{parameters:>12}"
        print(f"{name:16}{c.kind:7}{numbers}  {model.model_id[:32]}")
    return DONE


def _default_model(what: str) -> str:
    """The first model at hand for this kind of input."""
    from walloc_ref import model as models

    at_hand = models.available()
    for name in DEFAULT_MODELS[what]:
        if name in at_hand:
            return name
    raise BadSamples("model", "none named", f"one for {what} input: " + (", ".join(at_hand) or "none is at hand"))


def read_file(name: str) -> bytes:
    """All bytes of a file, or of the standard input."""
    if name == PIPE:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UnreadableFile("input", name, f"a readable file ({error.strerror})") from error


def write_file(name: str, data: bytes) -> None:
    """Write a file whole or not at all: to a temporary neighbour, then renamed."""
    if name == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():  # a device or a pipe takes no neighbour
        try:
            path.write_bytes(data)
        except OSError as error:
            raise UnreadableFile("output", name, f"a writable file ({error.strerror})") from error
        return
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp keeps others out; an ordinary file does not
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise UnreadableFile("output", name, f"a writable file ({error.strerror})") from error


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A progress bar on the standard error for work that takes longer than two seconds."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm(total=1.0, desc=what, delay=PROGRESS_DELAY, leave=False, bar_format=form) as bar:

        def tell(share: float) -> None:
            bar.update(max(0.0, share - bar.n))

        yield tell


if __name__ == "__main__":
    sys.exit(main())
