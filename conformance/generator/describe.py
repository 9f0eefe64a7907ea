"""What the manifest says in words, and which clauses of SPEC.md each stage exercises."""

from __future__ import annotations

from collections.abc import Iterable

from walloc_ref.model import Config

LEVELS = {
    "symbols": "every stream gives its symbols, and every invalid one is rejected",
    "decoder": "level symbols, and every stream gives its samples, sample for sample",
    "encoder": "samples give the right symbols in a valid stream, and bad samples are rejected",
    "decoder-binary32": "as decoder, but samples near a tie may differ; see binary32",
}
"""What may be claimed."""

BINARY32 = (
    "A binary32 decoder may have an error of delta = 2^-13 in the signal (which spans 1) before it rounds. "
    "Derivation: rounding errors in a sum of n terms grow as sqrt(n)·u, u = 2^-24 (Higham and Mary, A new "
    "approach to probabilistic rounding error analysis, 2019); n = 9·768 gives 83 u a layer, 14 layers 1200 u, "
    "and a factor of 2 for everything else gives less than 2^11 u. PyTorch in binary32 stays below a quarter of "
    "it on every vector, or the generator refuses the vector. So a sample whose margin in binary64 exceeds "
    "delta·(steps of the format) must be exact (its guard bit is clear), the others may differ by guard_step, "
    "that is delta·steps rounded up; and where delta·steps is below one half, at most the given share of the "
    "samples of a case may differ at all, but one always may."
)
"""The derived tolerance of level decoder-binary32."""

COMPARISONS = {
    "exact": {"kind": "exact", "reason": "integers, or reals that are copied and not computed (SPEC.md 2.4)"},
    "digest": {
        "kind": "digest",
        "reason": "integers, too many for the suite: type, shape and SHA-256 over them, little-endian, last index fastest",
    },
    "bytes": {"kind": "bytes", "reason": "entropy coding leaves no choice (14.2)"},
    "json": {"kind": "json", "reason": "fields as they stand in the stream"},
    "stream": {
        "kind": "stream",
        "reason": "a valid stream with the same header and symbols whose slices hold the bytes that follow from "
        "them; how it is cut into slices is the encoder's choice (10.8)",
    },
    "signal": {"kind": "real", "tolerance": 2.0**-50, "reason": "two operations in binary64"},
    "wavelet": {
        "kind": "real",
        "tolerance": 2.0**-44,
        "reason": "8 times the 7e-15 that orders of summation were seen to differ by; a twentieth of what 16-bit "
        "samples can bear (2.3), so that taps from a closed form are told apart (4.10)",
    },
    "projection": {
        "kind": "real",
        "tolerance": 2.0**-44,
        "reason": "sums of up to some thousand products in any order",
    },
    "network": {
        "kind": "real",
        "tolerance": 2.0**-40,
        "reason": "some 20 layers of sums of thousands of products, exp and sin of any library; PyTorch and NumPy "
        "differ by 2^-46",
    },
    "compand": {
        "kind": "real",
        "tolerance": 2.0**-42,
        "reason": "erf good to a few units in the last place, times 127; a thousandth of the bound of symbols",
    },
    "dequantise": {
        "kind": "real",
        "tolerance": 2.0**-42,
        "reason": "the inverse normal distribution of any good library, of the largest value; Annex A has 17 digits",
    },
    "samples-f32": {"kind": "real", "tolerance": 2.0**-23, "reason": "one rounding to f32, which has no margin (2.3)"},
    "samples-f64": {"kind": "real", "tolerance": 2.0**-40, "reason": "as the network before it"},
    "reject": {"kind": "reject", "reason": "any error is right; its wording and its class are not tested (12.1)"},
}
"""How outputs are compared; a real tolerance is absolute up to magnitude 1 and relative to the largest value above."""

FLAGS = {
    "odd": "sizes that are no multiple of 2^J, so that padding is odd or uneven",
    "size": "a size that is awkward: one sample, less than 2^J, exactly or nearly a multiple of it",
    "short": "some level of the transform sees a length of 8 or less, where the period is shorter than the filter reaches; "
    "PyWavelets computed it, because the upstream's filter bank wraps only once (13.2)",
    "grey": "one channel in a model of several",
    "step": "a step that is not 1",
    "window": "networks in windows",
    "slices": "more than one slice, the last one shorter",
    "large": "larger than what an implementation may take at a time: a strip, a piece, a slice, a byte of a count",
    "ancillary": "sections that a decoder may or must skip",
    "audio": "one spatial axis, section 11",
    "volume": "three spatial axes, section 16",
    "channels": "more than 64 channels",
    "tie": "values exactly half way between integers, and the next ones in binary64",
    "clamped": "values beyond the range of the signal",
    "saturated": "latents far beyond the range of the symbols",
    "fixed-crc": "damaged on purpose, with all CRCs made right again",
}
"""Flags of cases, each explained once."""

FAULTS = {
    "malformed": "the bytes are not a stream, a slice or a model file of this format",
    "unsupported": "well formed, but of a later version or with an unknown critical section",
    "limit": "a declared size is larger than the limits or the payload allow",
    "wrong-hash": "it decodes, but to something else than was hashed",
    "wrong-model": "the stream belongs to another model",
    "samples": "input that an encoder must refuse",
}
"""Classes of inputs that are to be rejected."""

ORIGINS = {
    "pytorch": "the upstream PyTorch model, in binary64",
    "pytorch-volume": "PyTorch in binary64 of ours, walloc_ref/measure/linear_codec_3d.py; the upstream has no volumes",
    "pywavelets": "the upstream PyTorch model in binary64, but the transform by PyWavelets (see flag short)",
    "numpy": "NumPy's own padding, where PyTorch refuses to reflect",
    "arithmetic": "the formula written out in generator/generate.py",
    "definition": "the clear definition in walloc_ref/stages/entropy.py; the upstream has no counterpart",
    "construction": "what the stream was made of",
    "damage": "a valid input, damaged by generator/invalid.py",
}
"""What computed the expected outputs."""

INFORMATIVE = {
    "1.1": "how the document is to be read",
    "1.2": "about the document's own numbering",
    "1.3": "notation; every vector uses it",
    "1.5": "notation; every vector uses it",
    "1.7": "how the document is to be read",
    "1.8": "names",
    "2.1": "the real numbers behind 2.4, which is tested",
    "2.2": "says what is compared; every case does",
    "2.5": "how, not what; the outcome is that of section 7",
    "2.6": "about one implementation run twice; the package's own tests do that",
    "2.8": "explanation",
    "2.7": "where the bounds come from",
    "4.8": "a consequence of 4.1 and 4.2",
    "4.9": "where the taps come from",
    "4.10": "another way to compute 4.2",
    "6.6": "a consequence of 8.7 and 12.3",
    "7.4": "notation",
    "7.14": "a consequence of 7.5; 12.5 is what follows from it",
    "7.17": "an example",
    "8.9": "an example",
    "9.1": "names",
    "9.10": "cost",
    "10.13": "a choice that a reader may offer; by default it rejects, which 10.8 tests",
    "10.14": "an example",
    "11.15": "how, not what",
    "12.6": "advice",
    "12.7": "advice",
    "14.1": "defines the levels that this suite tests",
    "14.3": "how the runner takes an answer",
    "14.4": "about this suite",
    "13.1": "history",
    "13.2": "history",
    "13.3": "history",
    "13.4": "history",
    "13.5": "history",
    "13.6": "history",
    "13.7": "history",
    "13.8": "history",
    "13.9": "history",
    "16.7": "a recommendation, of which 10.8 leaves an encoder free",
    "16.9": "advice, as 12.6",
    "16.10": "history",
}
"""Clauses of SPEC.md that demand nothing that a vector could show, and why."""

ENTROPY = {"7.1", "7.2", "7.5", "7.6", "7.7", "7.8", "7.9", "7.10", "7.11", "7.12", "7.15", "14.2"}
"""Clauses of entropy coding, all of which every slice exercises."""

AUDIO_STATISTICS = {"11.1", "11.2"}
AUDIO_SIGNAL = {"11.1", "11.3"}
AUDIO_PADDING = {"11.4"}
AUDIO_PROJECTION = {"11.5"}
AUDIO_DECODER = {"11.6", "11.7", "11.8", "11.9", "11.10", "11.16"}
AUDIO_ENCODER = {"11.6", "11.7", "11.8", "11.9", "11.11", "11.16"}
AUDIO_POST = {"11.6", "11.12"}
AUDIO_CLAMP = {"3.7", "11.13"}
AUDIO_CROP = {"11.13"}
AUDIO_SAMPLES = {"11.1", "11.14"}

_BLOCK = {"9.2", "9.3", "9.4", "9.5"}
DECODER_BLOCKS = {
    "conv_in": {"9.2", "9.8"},
    "mid.resnet0": {"9.7", *_BLOCK},
    "mid.attention": {"9.3", "9.6", "9.7"},
    "mid.resnet1": {"9.7", *_BLOCK},
    "up.resnet0": {"9.8", *_BLOCK},
    "up.resnet1": {"9.8", *_BLOCK},
    "up.resnet2": {"9.8", *_BLOCK},
    "head": {"9.2", "9.3", "9.4", "9.8"},
}
"""Clauses of each block of the decoder network for images."""

ENCODER_BLOCKS = {
    "conv_in": {"9.2", "9.9"},
    "down.resnet0": {"9.9", *_BLOCK},
    "down.resnet1": {"9.9", *_BLOCK},
    "mid.resnet0": {"9.7", *_BLOCK},
    "mid.attention": {"9.3", "9.6", "9.7"},
    "mid.resnet1": {"9.7", *_BLOCK},
    "head": {"9.2", "9.3", "9.4", "9.9"},
}
"""Clauses of each block of the full encoder for images."""


def latent_clauses(config: Config) -> set[str]:
    """Clauses of the way from subbands to latents."""
    if config.kind == "audio":
        return AUDIO_PROJECTION if config.lightweight_encode else AUDIO_ENCODER
    return {"5.1"} if config.lightweight_encode else {"9.2", "9.3", "9.4", "9.5", "9.6", "9.7", "9.9"}


def network_clauses(config: Config) -> set[str]:
    """Clauses of the way from latents to subbands."""
    return {
        "LinearCodec2D": {"5.2"},
        "LinearCodec3D": {"5.2", "16.4"},
        "ResidualCodec2D": {"5.3"},
        "Codec2D": {"9.2", "9.3", "9.4", "9.5", "9.6", "9.7", "9.8"},
        "Codec1D": AUDIO_DECODER,
    }[config.architecture]


def clauses_of(config: Config, *, encode: bool) -> set[str]:
    """Clauses of a whole encode up to the symbols, or of a whole decode from them."""
    audio = config.kind == "audio"
    if encode:
        edge = AUDIO_STATISTICS | AUDIO_SIGNAL | AUDIO_PADDING if audio else {"3.1", "3.2", "3.4", "3.5"}
        residual = config.architecture == "ResidualCodec2D"
        return edge | {"4.2", "4.5", "4.6", "6.2"} | ({"5.3"} if residual else latent_clauses(config))
    edge = AUDIO_CLAMP | AUDIO_SAMPLES if audio else {"3.1", "3.6", "3.7", "3.8"}
    post = AUDIO_POST if config.post_filter else set()
    return edge | post | {"4.3", "4.6", "4.7", "6.4", "8.1", "8.2", "8.3", "8.5"} | network_clauses(config)


def kind_clauses(op: str, stage: str, config: Config, form: str) -> set[str]:
    """Clauses that a stage exercises beside those of any image, because of what the samples and the model are."""
    clauses: set[str] = set()
    if config.kind != "audio" and stage in ("signal", "statistics", "samples", "symbols", "stream"):
        clauses |= {"s16": {"3.9"}, "f32": {"3.10"}}.get(form, set()) if op == "encode" or stage != "symbols" else set()
    if config.kind == "volume":
        clauses |= {
            "signal": {"16.1"},
            "pad": {"16.1"},
            "crop": {"16.1"},
            "samples": {"16.1"},
            "analysis": {"16.2"},
            "synthesis": {"16.2"},
            "latents": {"16.3", "16.4"},
            "network": {"16.3", "16.4"},
            "header": {"16.1"},
            "slice": {"16.3", "16.5", "16.6"},
            "symbols": {"16.3", "16.5", "16.6", "16.8"} if op == "decode" else {"16.1", "16.2", "16.3", "16.4"},
            "stream": {"16.1", "16.2", "16.3", "16.4", "16.5", "16.6", "16.8"},
        }.get(stage, set())
    return clauses


def levels_of(op: str, stage: str, rejects: bool, clauses: Iterable[str]) -> tuple[list[str], bool]:
    """Levels that a case belongs to, and whether they require it."""
    if op == "encode":
        return ["encoder"], stage == "stream"
    if stage in ("header", "slice", "symbols"):
        return ["symbols", "decoder", "decoder-binary32"], stage == "symbols"
    if stage == "stream" and rejects and "10.11" in clauses:
        return ["decoder"], True  # a certificate has no meaning in binary32
    if stage == "stream":
        return ["decoder", "decoder-binary32"], True
    return ["decoder"], False


def clause_key(clause: str) -> tuple[int, ...]:
    """Order of clauses."""
    return tuple(int(part) for part in clause.split("."))
