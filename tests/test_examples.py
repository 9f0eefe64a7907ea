"""Examples in docstrings are true, and every public name and every stage function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import walloc_ref
from walloc_ref import stages

STAGES = [f"walloc_ref.stages.{module.name}" for module in pkgutil.iter_modules(stages.__path__)]
MODULES = [*STAGES, "walloc_ref.codec", "walloc_ref.model", "walloc_ref.errors", "walloc_ref.fit"]
MODULES += ["walloc_ref.learning.latents"]


def functions(module) -> Iterator[tuple[str, object]]:
    """Public functions of a module, and public methods of its public classes; properties and constants aside."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for method, found in vars(value).items():
                if not method.startswith("_") and isinstance(found, (staticmethod, classmethod)):
                    found = found.__func__
                if not method.startswith("_") and inspect.isfunction(found):
                    yield f"{name}.{method}", found


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [test for test in finder.find(importlib.import_module(name)) if test.examples]
    said: list[str] = []
    for test in tests:
        runner.run(test, out=said.append)
    assert tests and runner.failures == 0, "".join(said)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_function_has_an_example(name):
    found = dict(functions(importlib.import_module(name)))
    assert len(found) >= 2
    assert [key for key, value in found.items() if ">>>" not in (value.__doc__ or "")] == []


def test_every_public_name_has_an_example():
    values = {name: getattr(walloc_ref, name) for name in walloc_ref.__all__}
    values |= {f"Codec.{k}": v for k, v in vars(walloc_ref.Codec).items() if not k.startswith("_") and callable(v)}
    assert [name for name, value in values.items() if ">>>" not in (value.__doc__ or "")] == []


def test_examples_are_short():
    """Four statements at most: more is what tutorials are for."""
    parser = doctest.DocTestParser()
    for name in STAGES:
        for key, function in functions(importlib.import_module(name)):
            assert len(parser.get_examples(function.__doc__ or "")) <= 4, f"{name}.{key}"
