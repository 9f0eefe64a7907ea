"""The command line. This module alone prints; files are opened and written as `files.whole_files` does it.

Exit codes: 0 done, 1 a check failed, 2 usage, 3 bad input, 130 interrupted. Errors are one line on the standard error that
names the field, the value and the limit. Output files appear whole or not at all.

Whatever is printed goes through `say`, because names of files, tensors and models come from anywhere. Whatever fails
ends in `main`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import walloc_ref
from walloc_ref.errors import BadSamples, UnreadableFile, WallocError, printable
from walloc_ref.fast import machine_code
from walloc_ref.fast.workers import Progress
from walloc_ref.files.whole_files import (
    PIPE,
    check_output,
    is_stream,
    read_file,
    standard_error,
    whole_file,
    write_file,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from walloc_ref.conform.suite import Case, Suite
    from walloc_ref.files.arrays import Wanted
    from walloc_ref.files.media import Media
    from walloc_ref.measure import evaluate
    from walloc_ref.model import Model
    from walloc_ref.rate_control import Candidate
    from walloc_ref.stages.container import Header

DONE, CHECK_FAILED, USAGE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; the last one is what a shell gives to a program that the signal 2 ended, 128 + 2."""

PROGRESS_DELAY = 2.0
"""Seconds after which work that is not done shows its progress."""

MAX_SECONDS = 1e6
"""Longest time that can be asked for; the system's clocks take little more."""

MAX_LINE = 4000
"""Characters of a line that are printed."""

PLACES = {"image": "pixel", "audio": "sample", "volume": "voxel"}
"""What bits are counted by."""

DEFAULT_MODELS = {
    "grey": ("gray_16x", "rgb_4x"),
    "colour": ("rgb_4x", "rgb_16x"),
    "grey at a rate": ("rgb_2x", "gray_16x", "rgb_4x"),
    "colour at a rate": ("rgb_2x", "rgb_4x", "rgb_16x"),
    "audio": ("stereo_2x", "stereo_5x"),
    "audio of 4 channels": ("ambisonics_8x",),
    "a volume of 1 channels in u8": ("mr_1x",),
}
"""Models that are taken where none is named: the first one at hand. "At a rate": where quality, a ratio, bytes or decibels
are asked for; the first of these has the widest range, and others of `adapters.RATE_MODELS` go on from it. For the other
volumes, whose samples fill who knows how much of the range of their format, there is none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    _open_standard_files()
    if arguments is None and not machine_code.listeners:  # this is the program, not a part of another one
        machine_code.listeners.append(_compiling)
    if not logging.getLogger().handlers:  # what a library logs, an error says once; unheard, it would go to our stderr
        logging.getLogger().addHandler(logging.NullHandler())
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        for name, value in vars(options).items():
            if "" in (value if isinstance(value, list) else [value]):  # it would mean what leaving it out means
                parser.error(f"argument {name}: empty")
        code = options.command(options)
    except WallocError as error:
        code = _failed(str(error))
    except MemoryError:
        code = _failed("memory: exhausted; a smaller input")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = BAD_INPUT  # whoever read our output has left
    except OSError as error:
        code = _failed(str(_unusable(error)))
    return _flushed(code)


def _compiling(kernel: machine_code.Kernel) -> None:
    """Say what takes long, once, and have another process help."""
    machine_code.listeners.remove(_compiling)
    folder = machine_code.writable_folder()
    kept = f"kept in {folder}" if folder else f"kept nowhere: name a folder in {machine_code.FOLDER_VARIABLE}"
    with contextlib.suppress(OSError, ValueError):
        say(f"walloc-ref: compiling kernels for this processor, once ({kept}; see walloc-ref warmup)", to_error=True)
    from walloc_ref.fast import warmup

    warmup.ahead(kernel)


def say(text: str, *, to_error: bool = False) -> None:
    """Print lines. All printing goes this way; nothing in a line can command a terminal."""
    stream = sys.stderr if to_error else sys.stdout
    if stream is not None:
        print("\n".join(printable(line, MAX_LINE) for line in text.split("\n")), file=stream)


def _failed(reason: str) -> int:
    """Say in one line why a command failed."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens
        say(f"walloc-ref: {reason}", to_error=True)
    return BAD_INPUT


def _unusable(error: OSError) -> UnreadableFile:
    """The error for a file that the system refused, or for the standard output where it names none."""
    name = "the standard output" if error.filename is None else error.filename
    return UnreadableFile("file", name, f"one that can be used ({error.strerror or error})")


def _open_standard_files() -> None:
    """Make the standard files usable, whatever they are: closed, or of an encoding that knows few characters.

    Format note: a file that is opened while one of them is closed takes its number, and what a C library writes to the
    standard error would go there.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """The exit code, once all output has been written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            code = code or BAD_INPUT
            if stream is sys.stdout and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                _failed(str(_unusable(error)))
            with contextlib.suppress(OSError, ValueError):  # what is left in the buffer must not fail again at the end
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that prints what it was given as `say` does."""

    def error(self, message: str) -> Any:
        """Say what is wrong in one line, and leave."""
        _failed(f"{printable(message)}; see {self.prog} --help")
        raise SystemExit(_flushed(USAGE))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help, or fail as other printing does, which the original does not."""
        file = file or sys.stderr
        if message and file is not None:
            file.write(message)

    def exit(self, status: int = 0, message: str | None = None) -> Any:
        """Leave, once all output has been written."""
        raise SystemExit(_flushed(status))


def _parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = _Parser(prog="walloc-ref", description="The reference codec for WaLLoC.")
    parser.add_argument("--version", action="version", version=f"walloc-ref {walloc_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    encode = commands.add_parser("encode", help="an image, an audio file or a volume to .wlc")
    files = "PNG, JPEG, WebP, TIFF, BMP; WAV, FLAC, OGG, MP3; .npy, .npz, ENVI's .hdr, .mat; NIfTI, a folder of DICOM"
    encode.add_argument("input", help=f"{files}; {PIPE}; or a folder of such files")
    encode.add_argument("output", nargs="?", help=f"the .wlc file, or {PIPE}; or a folder, if the input is one")
    _add_folders(encode)
    encode.add_argument("--model", help="a name that `models` lists, or a .safetensors file")
    _add_rate(encode)
    window = "latent positions of a window of the networks, or `none` (default: by the size of the image)"
    encode.add_argument("--window", type=_window, metavar="N", help=window)
    encode.add_argument("--certify", action="store_true", help="add the hash of the decoded samples (costs a decode)")
    encode.add_argument("--metadata", action="store_true", help="carry EXIF through, too")
    encode.add_argument("--no-icc", action="store_true", help="leave the ICC profile out (colours may change)")
    encode.add_argument(
        "--no-geometry", action="store_true", help="leave spacing, wavelengths, channel mask and such out"
    )
    _add_wanted(encode)
    encode.add_argument("--force", action="store_true", help="to an output of any name, even over the input")
    _add_limit(encode)
    encode.set_defaults(command=_encode)

    decode = commands.add_parser("decode", help=".wlc to an image, an audio file or a volume")
    decode.add_argument("input", help=f"the .wlc file, or {PIPE}; or a folder of such files")
    endings = "for volumes and many channels .tif, .npy, .npz, .mat, .nii, .nii.gz, .hdr"
    decode.add_argument(
        "output", nargs="?", help=f"its ending tells the format, {endings}; {PIPE}; or a folder, if the input is one"
    )
    _add_folders(decode)
    help_text = f"of {PIPE}, of devices and pipes, and of files in a folder (default .png or .wav)"
    decode.add_argument("--format", metavar="SUFFIX", help=help_text)
    region = "only these samples, from the slices and windows that they depend on; of a volume X,Y,Z,W,H,D"
    decode.add_argument("--region", type=_region, metavar="X,Y,W,H", help=region)
    decode.add_argument(
        "--precision",
        choices=("binary64", "binary32"),
        default="binary64",
        help="binary32: the network computes in that, faster, but samples are not certain (default %(default)s)",
    )
    decode.add_argument("--no-metadata", action="store_true", help="leave ICC profile, EXIF, geometry out")
    decode.add_argument("--model", help="a .safetensors file, where the model is not bundled")
    decode.add_argument("--force", action="store_true", help="of a folder: also what was done before")
    decode.add_argument("--keep-going", action="store_true", help="fill damaged slices with zeros and exit with 1")
    _add_limit(decode)
    decode.set_defaults(command=_decode)

    info = commands.add_parser("info", help="what a .wlc file says of itself, without decoding")
    info.add_argument("file", help=f"the .wlc file, or {PIPE}")
    info.add_argument("--json", action="store_true", help="for programs")
    info.set_defaults(command=_info)

    models = commands.add_parser("models", help="the models at hand")
    models.set_defaults(command=_models)

    warmup = commands.add_parser(
        "warmup", help="compile all kernels for this processor, so that no command waits for it"
    )
    warmup.set_defaults(command=_warmup)

    demo = commands.add_parser("demo", help="code a photograph, verify, measure and compare it, and draw the result")
    demo.add_argument("file", nargs="?", help="an image (default: the one that travels with the package)")
    demo.add_argument("--model", help="a name that `models` lists, or a .safetensors file")
    demo.add_argument("--out", default="demo.png", metavar="FILE", help="the contact sheet, PNG (default %(default)s)")
    demo.set_defaults(command=_demo)

    evaluation = commands.add_parser("eval", help="rate and distortion of models and of other codecs")
    evaluation.add_argument("files", nargs="+", help="images or audio, or folders, searched to their depths")
    evaluation.add_argument("--models", metavar="A,B", help="names or .safetensors files (default: all that fit)")
    help_text = "webp, jpeg, jpeg2000, jxl, avif; opus, mp3, vorbis; or none (default webp,jpeg,jxl or opus,mp3)"
    evaluation.add_argument("--against", metavar="A,B", help=help_text)
    evaluation.add_argument("--plot", metavar="FILE", help="the rate-distortion plot (.png, .svg or .pdf)")
    evaluation.add_argument("--json", metavar="FILE", help=f"all figures, of every file; or {PIPE}")
    help_text = "measure every model at these steps of the quantiser, too, as a curve"
    evaluation.add_argument("--steps", type=_steps, default=(), metavar="S,T", help=help_text)
    help_text = "other steps for a model; repeatable"
    evaluation.add_argument(
        "--steps-of", type=_steps_of, action="append", default=[], metavar="MODEL=S,T", help=help_text
    )
    help_text = "scale images by these before coding them with step 1, too, and back afterwards"
    evaluation.add_argument("--scales", type=_steps, default=(), metavar="S,T", help=help_text)
    help_text = "those of --against that are measured at the same bytes as each model (default: all)"
    evaluation.add_argument("--beside", metavar="A,B", help=help_text)
    help_text = "an earlier --json of the same files, to take curves and unchanged models from"
    evaluation.add_argument("--reuse", metavar="FILE", help=help_text)
    evaluation.add_argument("--markdown", action="store_true", help="tables for a document")
    evaluation.add_argument("--sheet", metavar="FOLDER", help="contact sheets, FOLDER/MODEL/IMAGE.png")
    evaluation.add_argument("--seconds", type=_seconds, metavar="S", help="only the first S seconds of audio")
    help_text = "leave the other codecs' curves out; then no rate at equal PSNR is given"
    evaluation.add_argument("--no-curves", action="store_true", help=help_text)
    kinds = ("spectral", "volume", "audio")
    help_text = "instead: fit models to each half of files of this kind, measure them on the other half"
    evaluation.add_argument("--halves", choices=kinds, help=help_text + " (--sheet, --json, --seconds, --reuse count)")
    help_text = "instead: fit models to all files of this kind but one, measure them on that one; for each"
    evaluation.add_argument("--leave-out", choices=kinds, help=help_text)
    evaluation.set_defaults(command=_eval)

    bench = commands.add_parser("bench", help="how fast every stage is, and how much memory it takes")
    bench.add_argument("file", nargs="?", help="an image or audio (default: the photograph of the package)")
    bench.add_argument("--model", help="a name that `models` lists, or a .safetensors file")
    bench.add_argument("--threads", metavar="N,M", help="numbers of threads (default: 1 and all processors)")
    bench.add_argument("--repeats", type=int, default=5, metavar="N", help="timed turns (default %(default)s)")
    bench.add_argument("--no-clear", action="store_true", help="leave the clear definitions out")
    bench.add_argument("--against-torch", action="store_true", help="time the upstream's PyTorch model, too")
    instead = bench.add_mutually_exclusive_group()
    size = "WIDTHxHEIGHT or frames: instead, peak memory of encoding and decoding the file repeated to that size"
    instead.add_argument("--memory", type=_sizes, metavar="SIZE", help=size)
    help_text = "megapixels, or seconds: instead, the whole codec beside others, on the file repeated to each"
    instead.add_argument("--sizes", type=_work_sizes, metavar="S,T", help=help_text)
    help_text = "of --sizes: speed over size (.png, .svg or .pdf)"
    bench.add_argument("--plot", metavar="FILE", help=help_text)
    bench.add_argument("--json", metavar="FILE", help=f"all figures; or {PIPE}")
    bench.set_defaults(command=_bench)

    checkpoint = commands.add_parser("import", help="a checkpoint of the upstream to a weights file")
    checkpoint.add_argument("checkpoint", help="the .pth file; it is read, never executed")
    checkpoint.add_argument(
        "config", nargs="?", help="the .json file beside it, where the checkpoint holds no configuration"
    )
    checkpoint.add_argument("output", help="the .safetensors file; its name becomes the model's")
    checkpoint.set_defaults(command=_import)

    _add_fit(commands)
    _add_explain(commands)
    symbols = commands.add_parser("symbols", help="symbols as files: the upstream's tile images, and .npy")
    actions = symbols.add_subparsers(required=True, metavar="ACTION")
    export = actions.add_parser("export", help=".wlc to .png, .webp, .tif or .npy")
    export.add_argument("input", help=f"the .wlc file, or {PIPE}")
    export.add_argument("output", help="its ending tells the format: .png one channel, .webp three, .tif four, .npy")
    export.add_argument("--model", help="a .safetensors file, where the model is not bundled")
    export.add_argument(
        "--fold", type=_count, default=128, metavar="N", help="audio: positions in a row (default %(default)s)"
    )
    _add_limit(export)
    export.set_defaults(command=_symbols_export)
    importing = actions.add_parser("import", help="a file of symbols, or a folder of them, to .wlc")
    decoding = actions.add_parser("decode", help="a file of symbols, or a folder of them, to images or audio")
    for action, command in ((importing, _symbols_import), (decoding, _symbols_decode)):
        action.add_argument("input", help="PNG, WebP, TIFF or .npy, or a folder, searched to its depths")
        action.add_argument("output", help="a file, or a folder if the input is one")
        action.add_argument("--model", required=True, help="a name that `models` lists, or a .safetensors file")
        size = "WIDTHxHEIGHT[xDEPTH], or frames, of what was encoded (the files do not say; default: the padded size)"
        action.add_argument("--size", type=_sizes, metavar="SIZE", help=size)
        action.add_argument("--step", type=float, default=1.0, metavar="S", help="they were quantised with (default 1)")
        action.add_argument("--rate", type=_count, default=44100, help="of audio (default %(default)s)")
        _add_limit(action)
        action.set_defaults(command=command)
    decoding.add_argument("--format", metavar="SUFFIX", help="of the files in an output folder (default .png or .wav)")
    _add_features(commands)
    _add_conform(commands)
    return parser


def _add_fit(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The grammar of `walloc-ref fit`."""
    fit = commands.add_parser("fit", help="a linear model in closed form, fitted to files of your own")
    fit.add_argument("files", nargs="+", help="images, audio, volumes, arrays; or folders, searched to their depths")
    fit.add_argument("--out", required=True, metavar="FILE", help="the .safetensors file; card and pictures beside it")
    fit.add_argument("--name", help="the model's name (default: the file's)")
    fit.add_argument("--kind", choices=("image", "volume"), help="what arrays of three axes in .npy, .npz, .mat are")
    fit.add_argument("--levels", type=int, metavar="J", help="of the transform (default: image 3, audio 8, volume 2)")
    size = fit.add_mutually_exclusive_group()
    size.add_argument("--latents", type=_count, metavar="N", help="at each position (default: what the rate is worth)")
    size.add_argument("--reduction", type=float, metavar="R", help="how many times fewer latents than subbands")
    fit.add_argument("--bits", type=int, default=8, metavar="B", help="of a symbol, 2 to 8 (default %(default)s)")
    target = fit.add_mutually_exclusive_group()
    target.add_argument("--step", type=float, metavar="S", help="of the quantiser, in 255ths of the range (default 12)")
    target.add_argument("--psnr", type=float, metavar="DB", help="that the model is to reach with a step of 1")
    target.add_argument("--ratio", type=float, metavar="R", help="bytes of samples over bytes of streams, instead")
    fit.add_argument(
        "--components", choices=("dense", "separable"), help="(default: what codes unseen samples smaller)"
    )
    fit.add_argument("--use-all", action="store_true", help="set nothing aside; then the card knows the fitted alone")
    _add_limit(fit)
    fit.set_defaults(command=_fit)


def _add_explain(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The grammar of `walloc-ref explain`."""
    explain = commands.add_parser("explain", help="the codec at work on a file, as a page for a browser")
    explain.add_argument("file", nargs="?", help="what encode reads (default: the photograph of the package)")
    explain.add_argument(
        "--out", default="report.html", metavar="FILE", help=f"the page, or {PIPE} (default %(default)s)"
    )
    explain.add_argument("--model", help="a name that `models` lists, or a .safetensors file")
    _add_rate(explain)
    explain.add_argument("--background", metavar="COLOUR", help="what transparent pixels are put on")
    _add_arrays(explain)
    _add_limit(explain)
    explain.set_defaults(command=_explain)


def _add_arrays(parser: argparse.ArgumentParser) -> None:
    """The options that say what a file of arrays does not."""
    arrays = parser.add_argument_group("what a file of arrays does not say")
    help_text = "letters of D (depth), H (rows), W (columns), C (channels) in the order of the file: DHW, CWH, …"
    arrays.add_argument("--axes", type=_axes, metavar="AXES", help=help_text)
    help_text = "sizes of axes that are run together, the last one counting fastest"
    arrays.add_argument("--shape", type=_shape, metavar="N,N", help=help_text)
    arrays.add_argument("--variable", metavar="NAME", help="the array, in .npz and .mat with several")
    help_text = "convert to it, if no value changes by that"
    arrays.add_argument("--sample-format", choices=("u8", "u16", "s16", "f32"), help=help_text)


def _add_features(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The grammar of `walloc-ref features`."""
    features = commands.add_parser("features", help="latents of many files as one array, to learn from")
    files = ".wlc files, and whatever `encode` reads; or folders of them, whose folders are labels"
    features.add_argument("inputs", nargs="+", help=files)
    features.add_argument("--out", required=True, metavar="FILE", help=".npz, .npy, .parquet or .zarr")
    features.add_argument("--model", help="a name that `models` lists, or a .safetensors file (default rgb_16x)")
    features.add_argument("--step", type=float, default=1.0, metavar="S", help="of the quantiser (default 1)")
    features.add_argument(
        "--dtype", choices=("int8", "float32"), default="int8", help="symbols, or latents (default int8)"
    )
    features.add_argument("--planes", choices=("first", "last"), default="first", help="their axis (default first)")
    size = "WIDTHxHEIGHT[xDEPTH] or length in latent positions: crop or pad with zeros to it"
    features.add_argument("--size", type=_sizes, metavar="SIZE", help=size)
    _add_wanted(features)
    _add_limit(features)
    features.set_defaults(command=_features)


def _add_conform(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The grammar of `walloc-ref conform`."""
    conform = commands.add_parser("conform", help="the conformance suite, against this codec or any other program")
    actions = conform.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser(
        "run", help="run it; exit code 0 conformant, 1 not, 2 incomplete, 3 suite corrupt, 4 command not started"
    )
    run.add_argument(
        "--impl", type=_command, metavar="COMMAND", help="'mydec {op} {stage} {model} {input} {output} {parameters}'"
    )
    run.add_argument("--serve", action="store_true", help="start the command once and give it a line for each case")
    run.add_argument("--only", action="append", default=[], metavar="PATTERN", help="ids to run; may be repeated")
    run.add_argument(
        "--level", choices=("symbols", "decoder", "encoder", "decoder-binary32"), help="cases of one level"
    )
    run.add_argument("--kind", choices=("image", "audio", "volume"), help="cases of one kind")
    run.add_argument("--jobs", type=_count, default=1, metavar="N", help="cases at the same time (default %(default)s)")
    run.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="of a case (default %(default)s)"
    )
    run.add_argument("--report", choices=("text", "json", "markdown"), default="text", help="on the standard output")
    run.add_argument("--junit", metavar="FILE", help="write JUnit XML as well")
    run.add_argument("--verbose", action="store_true", help="list every case")
    run.set_defaults(command=_conform_run)
    selftest = actions.add_parser("selftest", help="wrong implementations: every one must be caught where it is wrong")
    selftest.add_argument("--only", metavar="NAME", help="those whose names contain this")
    selftest.add_argument("--thorough", action="store_true", help="all cases, not a sample of each stage")
    selftest.set_defaults(command=_conform_selftest)
    listing = actions.add_parser("list", help="ids of the cases")
    listing.add_argument("patterns", nargs="*", metavar="PATTERN")
    listing.set_defaults(command=_conform_list)
    fluster = actions.add_parser("fluster", help="the valid streams as a test suite of fluster, in JSON")
    fluster.set_defaults(command=_conform_fluster)
    explain = actions.add_parser("explain", help="what a case exercises")
    explain.add_argument("id")
    explain.set_defaults(command=_conform_explain)
    diff = actions.add_parser("diff", help="where an output departs from the expected one, and by how much")
    diff.add_argument("id")
    diff.add_argument("--actual", metavar="FILE", required=True, help="the output of your program")
    diff.add_argument("--image", metavar="PNG", help="write a map of the difference")
    diff.set_defaults(command=_conform_diff)
    trace = actions.add_parser("trace", help="what the plain codec does in a case, step by step; where two traces part")
    trace.add_argument("id", nargs="?", help="the case to trace")
    trace.add_argument("--out", metavar="FILE", help="write the lines there; with .npz the arrays themselves")
    trace.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), help="the first step in which two files with traces differ"
    )
    trace.set_defaults(command=_conform_trace)
    validate = actions.add_parser("validate", help="read a stream: its first violation, with clause, byte and hint")
    validate.add_argument("file", help=f"the .wlc file, or {PIPE}")
    validate.add_argument("--model", help="a .safetensors file, where the model is not bundled")
    validate.set_defaults(command=_conform_validate)
    for action in (run, selftest, listing, fluster, explain, diff, trace):
        action.add_argument("--suite", type=Path, metavar="FOLDER", help="another suite than the one that came along")


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """The options of commands that take whole folders."""
    parser.add_argument("--out", metavar="OUTPUT", help="the same as the second argument")
    help_text = "of a folder: on the workers of this Dask scheduler, which see the same files (default: here)"
    parser.add_argument("--dask", metavar="ADDRESS", help=help_text)


def _add_wanted(parser: argparse.ArgumentParser) -> None:
    """Options of what is read."""
    parser.add_argument("--background", metavar="COLOUR", help="what transparent pixels are put on")
    _add_arrays(parser)


def _add_limit(parser: argparse.ArgumentParser) -> None:
    """The option that bounds what is decoded."""
    from walloc_ref.stages.container import MAX_SAMPLES

    help_text = "largest number of samples that is accepted (default %(default)s)"
    parser.add_argument("--max-samples", type=_count, default=MAX_SAMPLES, metavar="N", help=help_text)


def _count(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    """A time, over 0 and up to `MAX_SECONDS`."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not a time over 0 and up to {MAX_SECONDS:.0f}")
    return seconds


def _command(text: str) -> str:
    """A command that a shell could split into words, and not empty: else this package would be tested in its place."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{printable(text, 80)} is no command ({error})") from error
    if not words or not words[0]:
        raise argparse.ArgumentTypeError("the command is empty")
    return text


def _encode(options: argparse.Namespace) -> int:
    """walloc-ref encode."""
    from walloc_ref.files import media

    return _file_or_folder("encode", options, media.READ_SUFFIXES, encode_file)


def _decode(options: argparse.Namespace) -> int:
    """walloc-ref decode."""
    return _file_or_folder("decode", options, (".wlc",), decode_file)


def _file_or_folder(
    action: str,
    options: argparse.Namespace,
    suffixes: tuple[str, ...],
    work: Callable[[argparse.Namespace], tuple[int, str]],
) -> int:
    """Do some work on a file, or on all in a folder; there, one that is bad does not stop the others."""
    if (options.out is None) == (options.output is None):
        return _misused(f"{action}: an output is needed, once: after the input, or as --out")
    options.output = options.output or options.out
    is_series = action == "encode" and options.output.lower().endswith(".wlc")  # a folder of DICOM is one volume
    if is_series or not os.path.isdir(options.input):
        if options.dask:
            return _misused(f"{action} --dask: the input is no folder")
        code, text = work(options)
        _report(options.output, text)
        return code
    from walloc_ref import folders

    started = time.perf_counter()
    found = folders.jobs(action, options, suffixes)
    with progress(action) as tell:
        summary = folders.run(found, tell, options.dask)
    for failure in summary.failures:
        say(f"walloc-ref: {failure.source}: {failure.reason}", to_error=True)
    say(f"{options.output}: {summary.text()}, {time.perf_counter() - started:.2f} s")
    return max((failure.code or DONE for failure in summary.failures), default=DONE)


def _misused(reason: str) -> int:
    """Say what is wrong with the arguments."""
    _failed(reason)
    return USAGE


def _loaded(options: argparse.Namespace, name: str) -> walloc_ref.Codec:
    """The codec of a model; jobs of one process share those that they load."""
    from walloc_ref import codec as codecs

    shared = getattr(options, "models", {})
    if name not in shared:
        shared[name] = codecs.load_model(name)
    return shared[name]


def encode_file(options: argparse.Namespace) -> tuple[int, str]:
    """Encode one file; returns the exit code and what to say of it."""
    from walloc_ref import codec as codecs
    from walloc_ref.files import media
    from walloc_ref.rate_control import encode_finely

    started = time.perf_counter()
    check_output(options.output, [options.input], suffix=".wlc", force=options.force)
    codec = _loaded(options, options.model) if options.model else None
    found = media.read(
        options.input, _wanted(options, codec.config.kind if codec else None), background=options.background
    )
    candidates = _candidates(found, options, codec)
    known = found.geometry.to_json()
    extras: dict[str, Any] = {"metadata": known if known and not options.no_geometry else None}
    if found.kind == "audio":
        extras |= {"rate": found.rate, "sample_format": found.sample_format}
    if found.kind == "image":
        extras["icc_profile"] = None if options.no_icc else found.icc_profile
        extras["exif"] = found.exif if options.metadata else None
    with progress("encode") as tell:
        extras |= {"certify": options.certify, "progress": tell, **_rate_options(options)}
        codec, stream = encode_finely(candidates, found.samples, **extras)
    write_file(options.output, stream)
    seconds = time.perf_counter() - started
    facts = codecs.info(stream)
    return DONE, (
        f"{len(stream)} bytes, {_size(facts)}, {facts.ratio:.1f}:1, "
        f"{facts.bits_per_sample:.3f} bits per {PLACES[facts.kind]}, "
        f"model {codec.name}, {seconds:.2f} s"
    )


def _wanted(options: argparse.Namespace, kind: str | None) -> Wanted:
    """What the user and the model say of an input that does not say it."""
    from walloc_ref.files.arrays import Wanted

    return Wanted(
        kind=kind,
        axes=options.axes,
        shape=options.shape,
        variable=options.variable,
        sample_format=options.sample_format,
        max_samples=options.max_samples,
    )


def _what(found: Media, options: argparse.Namespace) -> tuple[str, str]:
    """The entry of `DEFAULT_MODELS` that an input and what is asked of it call for, and the input in words."""
    if found.kind == "audio":
        several = f"audio of {found.samples.shape[1] if found.samples.ndim > 1 else 1} channels"
        return (several if several in DEFAULT_MODELS else "audio"), several
    channels = found.samples.shape[-1] if found.samples.ndim > (3 if found.kind == "volume" else 2) else 1
    words = f"{'a volume' if found.kind == 'volume' else 'an image'} of {channels} channels in {found.sample_format}"
    plain = found.kind == "image" and found.sample_format in ("u8", "u16")
    from walloc_ref.adapters import RATES

    kind = {1: "grey", 3: "colour"}.get(channels, words) if plain else words
    at_a_rate = any(getattr(options, name) is not None for name in RATES)
    return (f"{kind} at a rate" if at_a_rate and f"{kind} at a rate" in DEFAULT_MODELS else kind), words


def _candidates(found: Media, options: argparse.Namespace, named: walloc_ref.Codec | None) -> list[Candidate]:
    """Codecs for an input: that of the model that is named; or the default one, and after `rgb_2x` those that get finer."""
    from walloc_ref import model as models
    from walloc_ref.adapters import RATE_MODELS
    from walloc_ref.rate_control import Candidate

    if named is not None:
        _check_kind(named, found.kind)
        return [Candidate(lambda: named)]
    what, words = _what(found, options)
    name = _default_model(what, words)
    steps = RATE_MODELS if name == next(iter(RATE_MODELS)) else {name: None}
    at_hand = models.available()
    return [Candidate(partial(_loaded, options, n), finest) for n, finest in steps.items() if n in at_hand]


def _rate_options(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of the encoder, as its keyword arguments."""
    names = ("quality", "ratio", "max_bytes", "psnr", "step", "window", "max_samples")
    return {name: getattr(options, name) for name in names}


def _report(output: str, text: str) -> None:
    """Say what was written; on the standard error, where the output itself went to the standard output."""
    say(f"{output}: {text}", to_error=output == PIPE)


def _check_kind(codec: walloc_ref.Codec, kind: str) -> None:
    """Refuse a model that is not for this kind of input."""
    if codec.config.kind != kind:
        raise BadSamples("model", f"{codec.name}, for {codec.config.kind}", f"a model for {kind}")


def _size(header: Header) -> str:
    """The size of what a stream holds, in words."""
    if header.kind == "audio":
        return f"{header.sizes[0]} frames of {header.channels} at {header.rate} Hz"
    return "x".join(map(str, header.sizes[::-1]))


def decode_file(options: argparse.Namespace) -> tuple[int, str]:
    """Decode one file; returns the exit code and what to say of it."""
    from dataclasses import replace

    from walloc_ref import codec as codecs
    from walloc_ref import model as models
    from walloc_ref.files import geometry, media

    started = time.perf_counter()
    check_output(options.output, [options.input])
    data = read_file(options.input)
    head, empty = _head(data, options)
    sizes, region = head.sizes, options.region
    if region is not None and len(region) == 2 * len(sizes):
        sizes = tuple(min(size, most) for size, most in zip(region[: len(sizes) - 1 : -1], sizes))
        empty = replace(empty, geometry=geometry.shifted(empty.geometry, region[len(sizes) - 1 :: -1]))
    name = _named_kind(options.output, options.format, head)
    lost = media.check(options.output, name, empty, sizes, head.channels)
    name_of_model = options.model or (models.name_of(head.model_id) if hasattr(options, "models") else None)
    codec = _loaded(options, name_of_model) if name_of_model else None
    with progress("decode") as tell:
        result = codecs.decode_stream(
            data,
            codec=codec,
            region=region,
            precision=options.precision,
            max_samples=options.max_samples,
            keep_going=options.keep_going,
            progress=tell,
        )
    media.write(options.output, name, replace(empty, samples=result.samples))
    if lost:
        what = f"has no place for what belongs to the samples: {', '.join(lost)}"
        say(f"walloc-ref: {options.output}: {what}", to_error=True)
    for number in result.damaged:
        first, end = head.slice_bounds(number)
        where = f"latent positions {first} to {end - 1} of {head.latent_sizes[0]}"
        say(f"walloc-ref: slice {number}: damaged, filled with zeros; {where}", to_error=True)
    seconds = time.perf_counter() - started
    text = f"{_size(head)}, {_verified(result)}, model {result.model}, {seconds:.2f} s"
    return CHECK_FAILED if result.damaged else DONE, text


def _verified(result: walloc_ref.Decoded) -> str:
    """What was verified about a decoded stream, in words."""
    if result.precision != "binary64":
        return f"{_verified(replace(result, precision='binary64'))}; in {result.precision}, not the certified precision"
    if not result.exact:
        return "symbols verified; samples may differ between machines, because the model amplifies rounding"
    if result.damaged:
        return "nothing verified"
    if result.region is not None:
        axes = len(result.region) // 2
        size, place = ("x".join(map(str, result.region[axes:])), ",".join(map(str, result.region[:axes])))
        return f"region {size} at {place}, its slices verified"
    if not result.certified:
        return "symbols verified"
    if result.uncertain:
        return f"symbols and {result.samples.size - result.uncertain} of {result.samples.size} samples verified"
    return "symbols and samples verified"


def _head(data: bytes, options: argparse.Namespace) -> tuple[Header, Media]:
    """What a stream says of its samples, and as a file without them, with the metadata that are wanted of it."""
    import numpy as np

    from walloc_ref.files import geometry, media
    from walloc_ref.stages import container

    if options.no_metadata:
        header, _, _ = container.read_head(data, max_samples=options.max_samples)
        stream = None
    else:
        stream = container.read(data, max_samples=options.max_samples, keep_going=True)
        header = stream.header
    known = container.metadata_from_bytes(stream.metadata) if stream and stream.metadata is not None else None
    empty = media.Media(
        kind=header.kind,
        samples=np.empty(0),
        sample_format=header.sample_format,
        rate=header.rate,
        icc_profile=stream.icc_profile if stream else None,
        exif=stream.exif if stream else None,
        geometry=geometry.from_json(known),
    )
    return header, empty


def _named_kind(output: str, suffix: str | None, header: Header) -> str:
    """A name that tells the kind of file: the output's own, or where that goes to a stream, one with this suffix."""
    from walloc_ref.files import media

    if not is_stream(output):
        return output
    suffix = suffix or media.usual_suffix(header.kind, header.sample_format, header.channels)
    return f"{output}{suffix if suffix.startswith('.') else '.' + suffix}"


def _info(options: argparse.Namespace) -> int:
    """walloc-ref info."""
    from walloc_ref import codec as codecs
    from walloc_ref import model as models
    from walloc_ref.files import geometry
    from walloc_ref.stages import container

    data = read_file(options.file)
    facts = codecs.info(data)
    beside = container.read(data, max_samples=1 << 62, keep_going=True).metadata if facts.metadata_bytes else None
    known = None if beside is None else container.metadata_from_bytes(beside)
    name = models.name_of(facts.model_id) or "not at hand"
    size = "x".join(map(str, facts.sizes[::-1]))
    rows: dict[str, object] = {
        "kind": facts.kind,
        "samples": f"{size}, {facts.channels} channels, {facts.sample_format}",
        "model": f"{name}, identity {facts.model_id.hex()}…",
        "symbols": f"{facts.latent_dim} planes of {'x'.join(map(str, facts.latent_sizes))}, {facts.latent_bits} bits",
        "step": f"{facts.step:g}{', by the step weights of the model' if facts.weighted else ''}",
        "slices": f"{facts.slices} of {facts.slice_size} latent positions",
        "symbol hash": facts.symbol_hash.hex(),
        "certified": "yes, the decoded samples can be verified" if facts.certified else "no",
        "metadata": f"ICC profile {facts.icc_profile_bytes} bytes, EXIF {facts.exif_bytes} bytes, "
        f"of the samples {facts.metadata_bytes} bytes",
        "bytes": facts.stream_bytes,
        "ratio": f"{facts.ratio:.1f}:1",
    }
    if facts.kind == "audio":
        rows["rate"] = f"{facts.rate} Hz"
    if facts.kind == "audio" or facts.sample_format == "f32":
        rows["scale"] = f"mean {facts.mean:g}, gain {facts.gain:g}"
    if facts.kind == "image":
        rows["windows"] = f"{facts.window} latent positions, context {facts.context}" if facts.window else "none"
    rows[f"bits per {PLACES[facts.kind]}"] = f"{facts.bits_per_sample:.3f}"
    if options.json:
        import json
        from dataclasses import asdict

        fields = {key: value.hex() if isinstance(value, bytes) else value for key, value in asdict(facts).items()}
        print(json.dumps(fields | {"model": name, "ratio": facts.ratio, "metadata": known}, indent=2))
        return DONE
    try:
        rows |= geometry.described(geometry.from_json(known))
    except WallocError as error:  # somebody else's metadata
        rows["geometry"] = f"none that can be used ({error})"
    for key, value in rows.items():
        say(f"{key + ' ':16}{value}")
    return DONE


def _features(options: argparse.Namespace) -> int:
    """walloc-ref features."""
    from walloc_ref.learning import latents, write

    write.check_output(options.out)
    check_output(options.out, options.inputs)
    started = time.perf_counter()
    with progress("features") as tell:
        found = latents.collect(
            options.inputs,
            options.model or latents.DEFAULT_MODEL,
            step=options.step,
            dtype=options.dtype,
            planes=options.planes,
            size=options.size,
            wanted=_wanted(options, None),
            background=options.background,
            progress=tell,
        )
    for name, why in found.failures:
        say(f"walloc-ref: {name}: {why}", to_error=True)
    if not found.names:
        return _failed("no file could be read")
    write.write(found, options.out)
    shape = "x".join(map(str, found.values.shape)) if not isinstance(found.values, list) else "of several sizes"
    labels = len(set(found.labels) - {""})
    seconds = time.perf_counter() - started
    say(
        f"{options.out}: {len(found.names)} files{f', {labels} labels' if labels else ''}, {options.dtype} {shape}, "
        f"model {found.model}, {seconds:.2f} s{f'; {len(found.failures)} failed' if found.failures else ''}"
    )
    return CHECK_FAILED if found.failures else DONE


def _models(options: argparse.Namespace) -> int:
    """walloc-ref models."""
    from walloc_ref import model as models

    say(f"{'name':16}{'kind':7}{'channels':>9}{'J':>3}{'latents':>9}{'bits':>5}{'parameters':>12}  {'exact':8}identity")
    code = DONE
    for name, path in models.available().items():
        try:
            model = models.load(path)
        except WallocError as error:
            code = _failed(f"{path}: {error}")
            continue
        c = model.config
        parameters = sum(tensor.size for tensor in model.tensors.values())
        numbers = f"{c.channels:>9}{c.J:>3}{c.planes:>9}{c.latent_bits:>5}{parameters:>12}"
        say(f"{name:16}{c.kind:7}{numbers}  {_exactness(model):8}{model.model_id[:32]}")
    return code


def _warmup(options: argparse.Namespace) -> int:
    """walloc-ref warmup."""
    from walloc_ref import plain
    from walloc_ref.fast import warmup

    if not plain.compiled() or machine_code.checked():
        raise BadSamples("warmup", "NUMBA_DISABLE_JIT or NUMBA_BOUNDSCHECK", "an environment without them")
    machine_code.listeners.clear()  # who calls this knows
    started = time.perf_counter()
    with progress("warmup") as tell:
        names = warmup.run(tell)
    folder, seconds = machine_code.writable_folder(), time.perf_counter() - started
    found = f"{len(names)} kernels compiled in {seconds:.1f} s" if names else f"all kernels were there; {seconds:.1f} s"
    if names and folder is None:
        looked = ", ".join(map(str, machine_code.folders()))
        return _failed(f"warmup: {found}, but none of {looked} can be written; name one in NUMBA_CACHE_DIR")
    say(f"{found}, kept in {folder or machine_code.folders()[0]}")
    return DONE


def _exactness(model: Model) -> str:
    """What of a model is the same on every machine, as its file says."""
    from walloc_ref import exactness

    if model.spread is None:
        return "?"
    spread = exactness.Spread(*model.spread)
    return "all" if spread.samples_exact and spread.symbols_exact else "symbols" if spread.symbols_exact else "nothing"


def _demo(options: argparse.Namespace) -> int:
    """walloc-ref demo."""
    from walloc_ref import codec as codecs
    from walloc_ref.files import image_files
    from walloc_ref.measure import evaluate

    if Path(options.out).suffix.lower() != ".png":
        raise UnreadableFile("--out", options.out, "a name that ends in .png")
    name = options.file or str(evaluate.PHOTOGRAPH)
    samples = image_files.read_image(read_file(name), name).samples
    codec = codecs.load_model(options.model or _default_model("grey" if samples.ndim == 2 else "colour"))
    _check_kind(codec, "image")
    with progress("demo") as tell:
        found = evaluate.demonstrate(samples, codec, name=Path(name).name, progress=tell)
    write_file(options.out, found.image)
    say(f"{name}: {samples.shape[1]}x{samples.shape[0]}, {samples.size} bytes of samples, model {codec.name}")
    say(f"\n{found.table}\n")
    say("decoded, and verified: the symbols, and every sample against the hash that the encoder certified")
    say(f"{options.out}: original, decoded, difference, and another codec at the same bytes")
    return DONE


def _explain(options: argparse.Namespace) -> int:
    """walloc-ref explain."""
    from walloc_ref.explain import report
    from walloc_ref.files import media
    from walloc_ref.measure import evaluate
    from walloc_ref.rate_control import encode_finely

    name = options.file or str(evaluate.PHOTOGRAPH)
    if not is_stream(options.out) and Path(options.out).suffix.lower() != ".html":
        raise UnreadableFile("--out", options.out, "a name that ends in .html")
    check_output(options.out, [name])
    codec = _loaded(options, options.model) if options.model else None
    found = media.read(name, _wanted(options, codec.config.kind if codec else None), background=options.background)
    rate = {key: getattr(options, key) for key in ("quality", "ratio", "max_bytes", "psnr", "step")}
    first, *others = candidates = _candidates(found, options, codec)
    with progress("explain") as tell:
        codec = encode_finely(candidates, found.samples, **rate)[0] if others else first.load()
        page = report.explain(found, codec, name=Path(name).name, progress=tell, **rate)
    write_file(options.out, page.encode())
    _report(options.out, f"{name}, model {codec.name}, {len(page.encode())} bytes; open it in a browser")
    return DONE


def _eval(options: argparse.Namespace) -> int:
    """walloc-ref eval."""
    import json

    from walloc_ref import codec as codecs
    from walloc_ref import model as models
    from walloc_ref.measure import evaluate, plots

    if options.halves or options.leave_out:
        return _eval_halves(options)
    if options.plot:
        plots.check(Path(options.plot).suffix.lower())
    items = list(_items(options.files, options.seconds))
    kind = items[0].kind if items else "image"
    if options.models:
        chosen = [codecs.load_model(name) for name in options.models.split(",")]
    else:
        at_hand = []
        for path in models.available().values():
            try:
                at_hand.append(codecs.load_model(path))
            except WallocError as error:
                _failed(f"{path}: {error}")
        chosen = [codec for codec in at_hand if codec.config.kind == kind and evaluate.fits(items, codec)]
    default = "webp,jpeg,jxl" if kind == "image" else "opus,mp3"
    against = [name for name in (options.against or default).split(",") if name != "none"]

    earlier = None
    if options.reuse:
        try:
            earlier = dict(json.loads(read_file(options.reuse)))
        except (ValueError, TypeError) as error:
            raise UnreadableFile("--reuse", options.reuse, f"what --json wrote ({error})") from error

    def draw(name: str, image: bytes) -> None:
        target = Path(options.sheet) / f"{name}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnreadableFile("--sheet", target.parent, f"a folder to write to ({error.strerror})") from error
        write_file(str(target), image)

    with progress("eval") as tell:
        result = evaluate.evaluate(
            items,
            chosen,
            against,
            curves=not options.no_curves,
            steps=options.steps,
            steps_of=dict(options.steps_of),
            scales=options.scales,
            beside=options.beside.split(",") if options.beside else None,
            earlier=earlier,
            draw=draw if options.sheet else None,
            progress=tell,
        )
    if options.json:
        write_file(options.json, json.dumps(result, indent=1, allow_nan=False).encode())
    if options.plot:
        write_file(options.plot, plots.rate_distortion(result, suffix=Path(options.plot).suffix.lower()))
    if options.json != PIPE:
        say(evaluate.table(result, markdown=options.markdown))
    return DONE


def _eval_halves(options: argparse.Namespace) -> int:
    """walloc-ref eval --halves, --leave-out."""
    import json

    from walloc_ref.files import media
    from walloc_ref.files.arrays import Wanted
    from walloc_ref.measure import modalities

    def draw(name: str, image: bytes) -> None:
        target = Path(options.sheet) / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(str(target), image)

    kind = options.halves or options.leave_out

    def opened(name: str) -> tuple[str, Any, int | None]:
        found = media.read(name, Wanted(kind="volume" if kind == "volume" else "image"))
        samples = found.samples
        if kind == "audio" and options.seconds is not None:
            samples = samples[: max(2, round(options.seconds * found.rate))]
        return Path(name).name.split(".")[0], samples, found.rate or None

    def subjects() -> Iterator[modalities.Subject]:
        if options.leave_out:
            files = [opened(name) for name in options.files]
            yield modalities.subject_of_files(files[0][0], [f for _, f, _ in files], kind, files[0][2])
        else:
            for name in options.files:
                title, samples, rate = opened(name)
                yield modalities.subject(title, samples, kind, rate)

    earlier = modalities.read_results(read_file(options.reuse), options.reuse) if options.reuse else {}
    results = []
    for about in subjects():
        with progress(f"eval {about.name}") as tell:
            reuse = earlier.get(about.name)
            results.append(modalities.evaluate(about, reuse=reuse, draw=draw if options.sheet else None, progress=tell))
        if options.json != PIPE:
            say(modalities.table(results[-1]))
    if options.json:
        write_file(options.json, json.dumps(results, indent=1).encode())
    return DONE


def _bench(options: argparse.Namespace) -> int:
    """walloc-ref bench."""
    import json

    from walloc_ref import codec as codecs
    from walloc_ref.fast import workers
    from walloc_ref.measure import bench, costs, evaluate, plots

    if options.plot:
        if not options.sizes:
            raise UnreadableFile("--plot", "a benchmark of one size", "--sizes, over which it draws")
        plots.check(Path(options.plot).suffix.lower())
    item = next(_items([options.file or str(evaluate.PHOTOGRAPH)], None), None)
    if item is None:
        raise UnreadableFile("input", options.file, "an image or an audio file")
    what = "audio" if item.kind == "audio" else "grey" if item.samples.ndim == 2 else "colour"
    model = options.model or _default_model(what)
    if options.memory:
        axes = 1 if item.kind == "audio" else 2
        if len(options.memory) != axes:
            raise BadSamples("--memory", "x".join(map(str, options.memory[::-1])), f"{axes} sizes, for {item.kind}")
        memory = bench.peak_memory(model, item, options.memory)
        if options.json:
            write_file(options.json, json.dumps(memory, indent=1).encode())
        if options.json != PIPE:
            size = "x".join(map(str, options.memory[::-1]))
            samples, coded = f"{memory['raw_bytes'] / 1e6:.1f} MB of samples", f"{memory['stream_bytes']} bytes coded"
            say(f"{item.name}, {size}, model {model}: {samples}, {coded}")
            for stage in ("encode", "decode"):
                found = memory[stage]
                base, peak = found["before"] / 1e6, found["peak"] / 1e6
                say(f"{stage}: peak {peak:.0f} MB, {base:.0f} of it before the first sample; {found['seconds']:.2f} s")
        return DONE
    try:
        threads = [int(number) for number in (options.threads or f"1,{workers.threads()}").split(",")]
    except ValueError:
        threads = [0]
    if min(threads) < 1 or options.repeats < 1:
        raise BadSamples("--threads, --repeats", f"{options.threads}, {options.repeats}", "whole numbers, 1 or more")
    codec = codecs.load_model(model)
    how: dict[str, Any] = {"threads": sorted(set(threads)), "repeats": options.repeats}
    how["against_torch"] = options.against_torch
    with progress("bench") as tell:
        if options.sizes:
            result = costs.run(codec, item, options.sizes, **how, progress=tell)
        else:
            result = bench.run(codec, item, **how, clear=not options.no_clear, progress=tell)
    if options.json:
        write_file(options.json, json.dumps(result, indent=1).encode())
    if options.plot:
        write_file(options.plot, plots.cost(result, suffix=Path(options.plot).suffix.lower()))
    if options.json != PIPE:
        say(costs.table(result) if options.sizes else bench.table(result))
    return DONE


def _items(names: Sequence[str], seconds: float | None) -> Iterator[evaluate.Item]:
    """Images and clips of whatever files `encode` reads, and of folders."""
    from walloc_ref.files import media
    from walloc_ref.files.arrays import Wanted
    from walloc_ref.measure import evaluate

    for name in names:
        for path in media.inputs_of(name) if os.path.isdir(name) else [name]:
            place = Path(path).name if path == name else Path(path).relative_to(name).as_posix()
            label = place[: len(place) - len(media.suffix_of(place))]
            found = media.read(path, Wanted(kind="image"))
            if found.kind == "volume":
                raise BadSamples("input", f"{path}, a volume", "images or audio; of volumes see `eval --halves volume`")
            if found.kind == "audio":
                frames = len(found.samples) if seconds is None else max(1, round(seconds * found.rate))
                yield evaluate.Item(label, found.samples[:frames], found.rate, found.sample_format)
            else:
                yield evaluate.Item(label, found.samples)


def _import(options: argparse.Namespace) -> int:
    """walloc-ref import."""
    from dataclasses import replace

    from walloc_ref import exactness
    from walloc_ref import model as models
    from walloc_ref.files import checkpoint

    if Path(options.output).suffix.lower() != ".safetensors":
        raise UnreadableFile("output", options.output, "a name that ends in .safetensors")
    check_output(options.output, [options.checkpoint, options.config or options.checkpoint])
    config = read_file(options.config) if options.config is not None else None
    found = checkpoint.read(read_file(options.checkpoint), config)
    model = checkpoint.to_model(found, Path(options.output).stem)
    spread = exactness.measure(model)
    model = replace(model, spread=(spread.symbols_bits, spread.signal_bits))
    write_file(options.output, models.save(model))
    for name in found.rounded:
        say(f"walloc-ref: tensor {name}: float64, rounded to float32", to_error=True)
    parameters = sum(tensor.size for tensor in model.tensors.values())
    say(f"{options.output}: {model.config.architecture}, {parameters} parameters, identity {model.model_id[:32]}")
    if not spread.samples_exact:
        what = "samples" if spread.symbols_exact else "symbols and samples"
        say(f"walloc-ref: {what} of this model may differ between machines: it amplifies rounding", to_error=True)
    return DONE


def _fit(options: argparse.Namespace) -> int:
    """walloc-ref fit."""
    from walloc_ref import fit
    from walloc_ref import model as models
    from walloc_ref.files import media
    from walloc_ref.files.arrays import Wanted
    from walloc_ref.fit import card
    from walloc_ref.stages.container import AXES_OF_KIND

    target = Path(options.out)
    if target.suffix.lower() != ".safetensors":
        raise UnreadableFile("--out", options.out, "a name that ends in .safetensors")
    beside = {suffix: target.with_suffix(suffix) for suffix in (".md", ".png")}
    names = list(_files_of(options.files))
    for name in (options.out, *map(str, beside.values())):
        check_output(name, names)
    wanted = Wanted(kind=options.kind, max_samples=options.max_samples)
    first = media.read(names[0], wanted)
    axes = AXES_OF_KIND[first.kind]

    def samples(name: str) -> NDArray[Any]:
        found = media.read(name, wanted)
        for what, value, limit in (
            ("kind", found.kind, first.kind),
            ("channels", found.samples.shape[axes:], first.samples.shape[axes:]),
        ):
            if value != limit:
                raise BadSamples(f"{name}, {what}", value, f"{limit}, as in {names[0]}")
        return found.samples

    with progress("fit") as tell:
        found = fit.fit(
            [lambda name=name: samples(name) for name in names],
            kind=first.kind,
            levels=options.levels,
            latents=options.latents,
            reduction=options.reduction,
            bits=options.bits,
            step=options.step,
            psnr=options.psnr,
            ratio=options.ratio,
            components=options.components,
            held_out=not options.use_all,
            name=options.name or target.stem,
            progress=tell,
        )
    text = card.card(found, names, beside[".png"].name)
    write_file(str(beside[".png"]), card.picture(found))
    write_file(str(beside[".md"]), text.encode())
    write_file(options.out, models.save(found.model))
    c, at = found.model.config, found.measured[0]
    say(
        f"{options.out}: {c.architecture}, {c.channels} channels, J {c.J}, {c.planes} latents, "
        f"{100 * found.energy_kept:.2f} % of the energy, identity {found.model.model_id[:32]}"
    )
    where = "set aside" if found.held_out else "fitted to"
    say(f"{at.ratio:.1f}:1 at {at.psnr:.2f} dB on what was {where}; {beside['.md']}, {beside['.png']}")
    return DONE


def _files_of(names: Sequence[str]) -> Iterator[str]:
    """Files, and those of folders by what their names end in; a folder with a DICOM series is one of them itself."""
    from walloc_ref.files import media

    for name in names:
        yield from (media.inputs_of(name) if os.path.isdir(name) else []) or [name]


def _add_rate(parser: argparse.ArgumentParser) -> None:
    """The options of rate control, of which one may be given."""
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=float, metavar="Q", help="0 to 100, about the same on every model")
    rate.add_argument(
        "--ratio", type=float, metavar="R", help="bytes of the samples over bytes of the stream, within 1 %%"
    )
    rate.add_argument("--max-bytes", type=int, metavar="N", help="as many bytes as go into N")
    rate.add_argument("--psnr", type=float, metavar="DB", help="within 0.05 dB (decodes to measure)")
    rate.add_argument(
        "--step", type=float, metavar="S", help="of the quantiser; 1 is the model's own, larger is coarser"
    )


def _steps_of(text: str) -> tuple[str, tuple[float, ...]]:
    """The name of a model, and steps of the quantiser."""
    name, _, steps = text.rpartition("=")
    return name, _steps(steps)


def _steps(text: str) -> tuple[float, ...]:
    """Several steps of the quantiser."""
    try:
        steps = tuple(float(part) for part in text.split(","))
    except ValueError:
        steps = ()
    if not steps or not all(2**-10 <= step <= 2**10 for step in steps):
        raise argparse.ArgumentTypeError(f"{text!r} is not steps from 2^-10 to 2^10 with commas between them")
    return steps


def _work_sizes(text: str) -> tuple[float, ...]:
    """Several sizes in megapixels or seconds, in rising order."""
    try:
        sizes = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or not all(0 < size < math.inf for size in sizes):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not numbers over 0 with commas between them")
    return sizes


def _window(text: str) -> int:
    """A size of windows, 0 for none."""
    if text == "none":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of latent positions, nor none")
    return int(text)


def _axes(text: str) -> str:
    """Letters of axes, H and W among them."""
    axes = text.upper()
    if not (set("HW") <= set(axes) <= set("DHWC") and len(set(axes)) == len(axes)):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not letters of D, H, W, C, each once, with H and W")
    return axes


def _shape(text: str) -> tuple[int, ...]:
    """Sizes with commas between them."""
    parts = text.split(",")
    if not 1 <= len(parts) <= 4 or not all(p.isascii() and p.isdigit() and len(p) < 13 and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{printable(text, 40)} is not up to four sizes with commas between them")
    return tuple(map(int, parts))


def _region(text: str) -> tuple[int, ...]:
    """X,Y,W,H or X,Y,Z,W,H,D."""
    parts = text.split(",")
    if len(parts) not in (4, 6) or not all(part.isascii() and part.isdigit() and len(part) < 13 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,W,H, nor X,Y,Z,W,H,D, in samples")
    return tuple(map(int, parts))


def _sizes(text: str) -> tuple[int, ...]:
    """WIDTHxHEIGHT as (height, width), frames as (frames,), or WIDTHxHEIGHTxDEPTH as (depth, height, width)."""
    parts = text.lower().split("x")
    if len(parts) > 3 or not all(part.isdecimal() and 0 < len(part) < 13 and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT[xDEPTH] or a number of frames")
    return tuple(int(part) for part in reversed(parts))


def _symbols_export(options: argparse.Namespace) -> int:
    """walloc-ref symbols export."""
    from walloc_ref import codec as codecs
    from walloc_ref.files import tiles
    from walloc_ref.stages import container

    check_output(options.output, [options.input])
    data = read_file(options.input)
    codec = codecs.load_model(options.model) if options.model else None
    header, _, _ = container.read_head(data, max_samples=options.max_samples)
    symbols = codecs.decode_symbols(data, codec=codec, max_samples=options.max_samples)
    if not 1 <= options.fold <= tiles.MAX_FOLD:
        raise BadSamples("--fold", options.fold, f"1 to {tiles.MAX_FOLD}")
    if symbols.ndim == 2 and Path(options.output).suffix.lower() != ".npy":
        symbols = tiles.fold(symbols, options.fold)
    write_file(options.output, tiles.write(symbols, header.latent_bits, options.output))
    shape = "x".join(map(str, symbols.shape[1:]))
    _report(options.output, f"{len(symbols)} planes of {shape}, symbols verified")
    return DONE


def _symbols_import(options: argparse.Namespace) -> int:
    """walloc-ref symbols import."""

    def work(codec: walloc_ref.Codec, source: str, target: str) -> None:
        symbols = _read_symbols(codec, source, options)
        write_file(target, codec.encode_symbols(symbols, options.size, options.rate, step=options.step))

    return _each_symbols_file(options, ".wlc", work)


def _symbols_decode(options: argparse.Namespace) -> int:
    """walloc-ref symbols decode."""
    import numpy as np

    from walloc_ref.files import audio_files, image_files

    def work(codec: walloc_ref.Codec, source: str, target: str) -> None:
        symbols, c = _read_symbols(codec, source, options), codec.config
        if c.kind == "volume":
            raise BadSamples("model", f"{codec.name}, for volumes", "one for images or audio; see `symbols import`")
        if c.kind == "image":
            sizes = options.size or tuple(n * c.multiple for n in symbols.shape[1:])
            image_files.check_image(target, np.dtype("u1"), sizes if len(sizes) == 2 else (1, 1))
        else:
            audio_files.check_audio(target, "s16", c.channels, options.rate)
        samples = codec.samples_of_symbols(symbols, options.size, step=options.step)
        if codec.config.kind == "image":
            write_file(target, image_files.write_image(image_files.ImageSamples(samples), target))
        else:
            with whole_file(target) as file:
                audio_files.write_audio(file, audio_files.AudioSamples(samples, options.rate, "s16"), target)

    return _each_symbols_file(options, options.format, work)


def _each_symbols_file(
    options: argparse.Namespace, suffix: str | None, work: Callable[[walloc_ref.Codec, str, str], None]
) -> int:
    """Do some work on a file of symbols, or on all in a folder; there, one that is bad does not stop the others."""
    from walloc_ref import codec as codecs
    from walloc_ref.files import tiles

    codec = codecs.load_model(options.model)
    source, target = Path(options.input), Path(options.output)
    if not os.path.isdir(source):
        check_output(options.output, [options.input])
        work(codec, options.input, options.output)
        _report(options.output, f"model {codec.name}")
        return DONE
    suffix = suffix or (".wav" if codec.config.kind == "audio" else ".png")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in tiles.SUFFIXES and path.is_file())
    targets = [target / path.relative_to(source).with_suffix(suffix) for path in found]
    if not found:
        raise UnreadableFile("input", options.input, "a folder with files that end in " + ", ".join(tiles.SUFFIXES))
    if len(set(targets)) < len(targets):
        twice = next(path for path in targets if targets.count(path) > 1)
        raise UnreadableFile("output", twice, "a name for one file of the input; several would become it")
    failed = 0
    with progress("symbols") as tell:
        for number, (path, name) in enumerate(zip(found, targets)):
            try:
                name.parent.mkdir(parents=True, exist_ok=True)
                work(codec, str(path), str(name))
            except (WallocError, OSError) as error:
                failed += 1
                say(f"walloc-ref: {path}: {error}", to_error=True)
            tell((number + 1) / len(found))
    say(f"{options.output}: {len(found) - failed} files, {failed} failed, model {codec.name}")
    return BAD_INPUT if failed else DONE


def _read_symbols(codec: walloc_ref.Codec, name: str, options: argparse.Namespace) -> NDArray[np.int16]:
    """Symbols from a file, (planes, h, w) or (planes, l)."""
    from walloc_ref.files import tiles

    c = codec.config
    positions = options.max_samples // (c.channels * c.multiple**c.axes) + (tiles.MAX_FOLD if c.kind == "audio" else 0)
    symbols = tiles.read(read_file(name), c.planes, c.latent_bits, name=name, axes=c.axes + 1, max_positions=positions)
    if c.kind == "audio" and symbols.ndim == 3:
        length = None if options.size is None else codec.config.latent_sizes(options.size)[0]
        return tiles.unfold(symbols, length, J=c.J)
    return symbols


def _conform_run(options: argparse.Namespace) -> int:
    """walloc-ref conform run."""
    import json

    from walloc_ref import plain
    from walloc_ref.conform import publish, runner, stages
    from walloc_ref.conform import suite as suites

    if options.serve and options.impl is None:
        _failed("--serve needs --impl")
        return USAGE
    try:
        suite = suites.load(options.suite)
        problems = _problems(suite)
        if problems:
            raise suites.SuiteCorrupt("; ".join(problems[:5]))
        if options.impl is None:
            narrow = options.level == "decoder-binary32" and plain.compiled()
            precision = "binary32" if narrow else "binary64"
            implementation: runner.Implementation = runner.InProcess(stages.Package(precision))
        else:
            started = runner.Server if options.serve else runner.Command
            implementation = started(options.impl, options.timeout)
        cases = suite.select(options.only, options.level, options.kind)
        with progress("conform") as tell:
            done: list[runner.Result] = []

            def count(result: runner.Result) -> None:
                done.append(result)
                tell(len(done) / len(cases))

            report = runner.run(
                suite,
                implementation,
                cases,
                level=options.level,
                kind=options.kind,
                jobs=options.jobs,
                tell=count,
            )
    except suites.SuiteCorrupt as error:
        _failed(f"the suite is corrupt: {printable(str(error))}")
        return runner.SUITE_CORRUPT
    except runner.CannotStart as error:
        _failed(f"the command could not be started: {printable(str(error))}")
        return runner.NOT_STARTED
    if options.report == "json":
        about = publish.facts(suite, options.impl)
        print(json.dumps({**about, **json.loads(report.json())}, indent=1))  # ASCII, whatever it says
    elif options.report == "markdown":
        say(publish.markdown(report, publish.facts(suite, options.impl)))
    else:
        say(report.text(options.verbose))
    if options.junit:
        write_file(options.junit, report.junit().encode())
    return report.exit_code


def _conform_selftest(options: argparse.Namespace) -> int:
    """walloc-ref conform selftest."""
    from walloc_ref.conform import mutants, runner

    suite = _suite(options)
    missed = 0
    chosen = [mutant for mutant in mutants.MUTANTS if (options.only or "") in mutant.name]
    for mutant in chosen:
        catch = mutants.check(suite, mutant, thorough=options.thorough)
        missed += not catch.right
        where = f"caught by {catch.result.case.id}" if catch.result else f"NOT CAUGHT in {catch.cases} cases"
        wrong = "" if catch.right or not catch.result else f", NOT BY {mutant.breaks}"
        say(f"{mutant.name:28}{mutant.breaks:28}{where}{wrong}")
    say(f"{len(chosen) - missed} of {len(chosen)} wrong implementations caught by the stage that they break")
    if not chosen:
        return runner.INCOMPLETE
    return CHECK_FAILED if missed else DONE


def _conform_fluster(options: argparse.Namespace) -> int:
    """walloc-ref conform fluster."""
    from walloc_ref.conform import publish

    print(publish.fluster(_suite(options)))
    return DONE


def _conform_list(options: argparse.Namespace) -> int:
    """walloc-ref conform list."""
    for case in _suite(options).select(options.patterns):
        say(case.id)
    return DONE


def _conform_explain(options: argparse.Namespace) -> int:
    """walloc-ref conform explain."""
    from walloc_ref.conform import explain

    suite = _suite(options)
    say(explain.explain(suite, _conform_case(suite, options.id)))
    return DONE


def _conform_diff(options: argparse.Namespace) -> int:
    """walloc-ref conform diff."""
    import numpy as np

    from walloc_ref.conform import explain
    from walloc_ref.files import image_files

    suite = _suite(options)
    if options.image:
        image_files.check_image(options.image, np.dtype("u1"), (1, 1))
    text, image = explain.diff(suite, _conform_case(suite, options.id), read_file(options.actual))
    say(text)
    if image is not None and options.image:
        write_file(options.image, image_files.write_image(image_files.ImageSamples(image), options.image))
    return DONE if "No difference" in text else CHECK_FAILED


def _conform_trace(options: argparse.Namespace) -> int:
    """walloc-ref conform trace."""
    import numpy as np

    from walloc_ref.conform import trace

    if (options.id is None) == (options.diff is None) or (options.out and options.diff):
        _failed("conform trace takes the id of a case, and perhaps --out FILE; or --diff A B alone")
        return USAGE
    if options.diff:
        first, second = options.diff
        same, text = trace.diff(read_file(first), read_file(second), (first, second))
        say(text)
        return DONE if same else CHECK_FAILED
    suite = _suite(options)
    case = _conform_case(suite, options.id)
    if options.out is None:
        trace.trace(suite, case, print)  # lines are ASCII or made printable, and are not to be shortened
        return DONE
    check_output(options.out)
    arrays: dict[str, Any] | None = {} if options.out.endswith(".npz") else None
    if arrays is not None and not trace.has_arrays(case):
        raise BadSamples("out", options.out, f"a text: a trace of {case.stage_name} has no arrays")
    lines: list[str] = []
    trace.trace(suite, case, lines.append, arrays=arrays)
    with whole_file(options.out) as file:
        if arrays is None:
            file.write("".join(f"{line}\n" for line in lines).encode())
        else:
            np.savez(file, **arrays)
    return DONE


def _conform_validate(options: argparse.Namespace) -> int:
    """walloc-ref conform validate."""
    from walloc_ref import model as models
    from walloc_ref.conform import validate

    data = read_file(options.file)
    try:
        findings = validate.validate(data, models.find(options.model) if options.model else None)
    except validate.Violation as violation:
        say(f"{options.file}: byte {violation.offset}: {violation.what}")
        say(f"  clause {violation.clause} of SPEC.md")
        say(f"  {violation.hint}")
        return CHECK_FAILED
    say(f"{options.file}: valid: {', '.join(findings.verified)}")
    for missing in findings.missing:
        say(f"  not verified: {missing}")
    return CHECK_FAILED if findings.missing else DONE


def _problems(suite: Suite) -> list[str]:
    """What is not as the manifest of a suite says, or that it is no manifest; devices, which never end, are not read."""
    try:
        special = [name for name in suite.manifest["files"] if is_stream(str(suite.path(name)))]
        return [f"{name}: no file" for name in special] or suite.check()
    except (LookupError, TypeError, AttributeError, ValueError, AssertionError) as error:
        return [f"the manifest is of another form ({type(error).__name__}: {error})"]


def _suite(options: argparse.Namespace) -> Suite:
    """The conformance suite, checked."""
    from walloc_ref.conform import suite as suites

    try:
        suite = suites.load(options.suite)
    except suites.SuiteCorrupt as error:
        raise UnreadableFile("suite", error, "a conformance suite") from error
    problems = _problems(suite)
    if problems:
        raise UnreadableFile("suite", problems[0], f"what its manifest says ({len(problems)} problems)")
    return suite


def _conform_case(suite: Suite, name: str) -> Case:
    """A case by its id."""
    try:
        return suite.case(name)
    except KeyError as error:
        raise UnreadableFile("id", name, "a case that `walloc-ref conform list` names") from error


def _default_model(what: str, words: str | None = None) -> str:
    """The first model at hand for this kind of input."""
    from walloc_ref import model as models

    at_hand = models.available()
    for name in DEFAULT_MODELS.get(what, ()):
        if name in at_hand:
            return name
    limit = f"--model, one for {words or what}; at hand: " + (", ".join(at_hand) or "none")
    raise BadSamples("model", "none named", limit)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A progress bar on the standard error, if a person looks at it, for work that takes longer than two seconds."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda share: None
        return
    started = time.time()
    bars: list[Any] = []
    form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"

    def tell(share: float) -> None:
        with standard_error:  # which libraries are kept from meanwhile, in other threads
            if not bars and time.time() - started > PROGRESS_DELAY:
                from tqdm import tqdm  # here, because most work is done before it were imported

                bars.append(tqdm(total=1.0, desc=what, leave=False, bar_format=form))
                bars[0].start_t = started
            for bar in bars:
                bar.update(max(0.0, share - bar.n))

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()


if __name__ == "__main__":
    sys.exit(main())
