"""Pages that run: the blocks of a Markdown page are executed in order, and what they print is compared with the page.

    python tests/pages.py walloc_ref/tutorials/*.md          # writes outputs and pictures anew

Blocks marked `python` run in one namespace for the whole page. Where the first line of one is `# file: NAME`, it
becomes that file instead (with `(continued)`, more of it); where it is `# needs: PACKAGES`, it runs where these can be
imported. In a block marked `sh` each line is a command; one that ends in `# exit code N` ends so, others with 0. A block
marked `text` that follows is what was printed. In it `…` stands for anything, and numbers with a decimal point may differ
by one in their last place, since the last bits of a sum depend on the machine. A picture that a block writes under the
name of one beside the page is that picture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+")
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w.-]+\.(?:jpg|png|webp))\)")
EXIT_CODE = re.compile(r"# exit code (\d+)$")
FILE = re.compile(r"# file: (\S+)( \(continued\))?\n")
NEEDS = re.compile(r"# needs: (.*)\n")
SKIPPED = "a package that this block needs is not installed\n"


@dataclass
class Run:
    """What became of a page.

    Attributes
    ----------
    text : str
        The page with what its blocks printed; what only differs as it may is left as it is.
    names : dict
        The namespace of its Python blocks.
    wrong : list of (str, str)
        Outputs of the page that were not what was printed, and what was.
    unchecked : list of str
        Blocks that print, without an output after them.
    """

    text: str
    names: dict[str, Any] = field(default_factory=dict)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def run(page: Path, folder: Path) -> Run:
    """Run a page with `folder`, which becomes the current one meanwhile, as its place."""
    source = page.read_text(encoding="utf-8")
    result = Run(source, {"__name__": "page"})
    blocks = list(BLOCK.finditer(source))
    pieces, at = [], 0
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else _chdir(folder):
        for block, following in zip(blocks, [*blocks[1:], None]):
            if block[1] not in ("python", "sh"):
                continue
            try:
                printed = _execute(block[1], block[2], result.names)
            except Exception as error:
                line = source.count("\n", 0, block.start()) + 2
                raise AssertionError(f"{page.name}, block at line {line}: {type(error).__name__}: {error}") from error
            shown = (
                following is not None and following[1] == "text" and not source[block.end() : following.start()].strip()
            )
            if shown and printed != SKIPPED and not same(following[2], printed):
                result.wrong.append((following[2], printed))
                pieces += [source[at : following.start(2)], printed]
                at = following.end(2)
            elif not shown and printed != SKIPPED and printed.strip():
                result.unchecked.append(block[2])
    result.text = "".join([*pieces, source[at:]])
    return result


@contextlib.contextmanager
def _chdir(folder: Path):
    """`contextlib.chdir`, which Python 3.10 does not have."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _execute(language: str, code: str, names: dict[str, Any]) -> str:
    """Run a block; return what it printed, ends of lines without blanks."""
    out = io.StringIO()
    to_file = FILE.match(code)
    if to_file:
        with Path(to_file[1]).open("a" if to_file[2] else "w", encoding="utf-8") as file:
            file.write("\n" * bool(to_file[2]) + code[to_file.end() :])
    elif language == "python":
        needed = NEEDS.match(code)
        if needed and not all(map(importlib.util.find_spec, needed[1].split())):
            return SKIPPED
        with contextlib.redirect_stdout(out):
            exec(compile(code, "block", "exec"), names)
    elif language == "sh":
        for line in code.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                out.write(_command(line))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _command(line: str) -> str:
    """Run a command; both of its streams, as one."""
    from walloc_ref import cli

    wanted = EXIT_CODE.search(line)
    words = shlex.split(line, comments=True)
    out = io.StringIO()
    if words[0] == "walloc-ref":
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = cli.main(_python(words[1:]))
        printed = out.getvalue()
    else:
        done = subprocess.run(_python(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        code, printed = done.returncode, done.stdout
    assert code == int(wanted[1] if wanted else 0), f"{line}: exit code {code}\n{printed}"
    return printed


def _python(words: list[str]) -> list[str]:
    """Words of a command with the Python that runs this in place of `python`."""
    return [re.sub(r"^python(?= |$)", lambda _: shlex.quote(sys.executable), word) for word in words]


def same(wanted: str, found: str) -> bool:
    """Whether an output is what the page says, as this module describes it."""
    if wanted == found:
        return True
    parts = re.split(r"(…|-?\d+\.\d+)", wanted)
    pattern = "".join(
        ".*?" if part == "…" else rf"({NUMBER.pattern})" if NUMBER.fullmatch(part) else re.escape(part)
        for part in parts
    )
    match = re.fullmatch(pattern, found, re.DOTALL)
    return match is not None and all(map(_near, NUMBER.findall(wanted), match.groups()))


def _near(wanted: str, found: str) -> bool:
    """Whether two numbers have as many places and differ by one in the last of them at most."""
    places = len(wanted.split(".")[1])
    return len(found.split(".")[1]) == places and abs(float(wanted) - float(found)) < 1.5 * 10.0**-places


def pictures(page: Path) -> list[str]:
    """Names of the pictures beside a page that it shows."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def prepare(folder: Path) -> None:
    """Lay out what a reader has: the specification, and a checkpoint, written by hand where PyTorch is not installed."""
    import pickles

    import walloc_ref

    shutil.copy(Path(__file__).parent.parent / "SPEC.md", folder)
    model = walloc_ref.load_model("rgb_16x").model
    (folder / "checkpoint.pth").write_bytes(pickles.checkpoint(model, config="dict"))


def renew(page: Path, folder: Path) -> None:
    """Write a page's outputs and pictures anew."""
    result = run(page, folder)
    page.write_text(result.text, encoding="utf-8")
    for name in pictures(page):
        if (folder / name).is_file():
            (page.parent / name).write_bytes((folder / name).read_bytes())
    for wanted, found in result.wrong:
        print(f"{page.name}: was\n{wanted}is\n{found}")
    for block in result.unchecked:
        print(f"{page.name}: prints, and nothing is compared:\n{block}")


if __name__ == "__main__":
    import tempfile

    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            if name.endswith("README.md"):
                continue
            prepare(Path(place))
            renew(Path(name).resolve(), Path(place))
