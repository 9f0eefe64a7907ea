"""The command line. This module alone opens files and prints.

Exit codes: 0 done, 1 a check failed, 2 usage, 3 bad input. Errors are one line on the standard error that names the field,
the value and the limit. Output files appear whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import walloc_ref
from walloc_ref.errors import BadSamples, UnreadableFile, WallocError
from walloc_ref.workers import Progress

if TYPE_CHECKING:
    from walloc_ref.container import Header

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
    from walloc_ref import media, sound

    started = time.perf_counter()
    with open_input(options.input) as file:
        head = file.read(sound.HEAD_BYTES)
        file.seek(0)
        if sound.is_sound(head):
            clip = sound.read_sound(file, options.input, max_samples=options.max_samples)
            codec = codecs.load_model(options.model or _default_model("audio"))
            _check_kind(codec, "audio")
            with progress("encode") as tell:
                stream = codec.encode(
                    clip.samples,
                    clip.rate,
                    sample_format=clip.sample_format,
                    certify=options.certify,
                    progress=tell,
                )
        else:
            data = file.read()
            picture = media.read_image(
                data, options.input, background=options.background, max_samples=options.max_samples
            )
            codec = codecs.load_model(
                options.model or _default_model("grey" if picture.samples.ndim == 2 else "colour")
            )
            _check_kind(codec, "image")
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
    print(
        f"{options.output}: {len(stream)} bytes, {_size(facts)}, {facts.ratio:.1f}:1, "
        f"{facts.bits_per_sample:.3f} bits per {'sample' if facts.kind == 'audio' else 'pixel'}, "
        f"model {codec.name}, {seconds:.2f} s",
        file=sys.stderr if options.output == PIPE else sys.stdout,
    )
    return DONE


def _check_kind(codec: walloc_ref.Codec, kind: str) -> None:
    """Refuse a model that is not for this kind of input."""
    if codec.config.kind != kind:
        raise BadSamples("model", f"{codec.name}, for {codec.config.kind}", f"a model for {kind}")


def _size(header: Header) -> str:
    """The size of what a stream holds, in words."""
    if header.kind == "audio":
        return f"{header.sizes[0]} frames of {header.channels} at {header.rate} Hz"
    return "x".join(map(str, header.sizes[::-1]))


def _decode(options: argparse.Namespace) -> int:
    """walloc-ref decode."""
    from walloc_ref import codec as codecs
    from walloc_ref import container, media, sound

    started = time.perf_counter()
    data = read_file(options.input)
    header, _, _ = container.read_head(data, max_samples=options.max_samples)
    if header.kind == "image":
        import numpy as np

        media.check_image_name(options.output, np.dtype("u1" if header.sample_format == "u8" else "u2"))
    elif header.kind == "audio":
        sound.check_sound_name(options.output, header.sample_format)
    codec = codecs.load_model(options.model) if options.model else None
    with progress("decode") as tell:
        result = codecs.decode_stream(
            data, codec=codec, max_samples=options.max_samples, keep_going=options.keep_going, progress=tell
        )
    if header.kind == "audio":
        with whole_file(options.output) as file:
            sound.write_sound(file, sound.Sound(result.samples, header.rate, header.sample_format), options.output)
    else:
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
    report = sys.stderr if options.output == PIPE else sys.stdout
    print(f"{options.output}: {_size(header)}, {verified}, model {result.model}, {seconds:.2f} s", file=report)
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


def open_input(name: str) -> BinaryIO:
    """A file, or all of the standard input, to read and to seek in."""
    if name == PIPE:
        return io.BytesIO(sys.stdin.buffer.read())
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UnreadableFile("input", name, f"a readable file ({error.strerror})") from error


def write_file(name: str, data: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(name) as file:
        file.write(data)


@contextlib.contextmanager
def whole_file(name: str) -> Iterator[BinaryIO]:
    """A file to write and to seek in, that appears whole or not at all: a temporary neighbour, renamed at the end."""
    path = Path(name)
    if name == PIPE or (path.exists() and not path.is_file()):  # a device or a pipe takes no neighbour
        memory = io.BytesIO()
        yield memory
        if name == PIPE:
            sys.stdout.buffer.write(memory.getbuffer())
            sys.stdout.buffer.flush()
            return
        try:
            path.write_bytes(memory.getbuffer())
        except OSError as error:
            raise UnreadableFile("output", name, f"a writable file ({error.strerror})") from error
        return
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w+b") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp keeps others out; an ordinary file does not
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UnreadableFile("output", name, f"a writable file ({error.strerror})") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


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
