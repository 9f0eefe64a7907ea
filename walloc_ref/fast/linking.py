"""A kernel's functions as Numba makes them, brought together first and optimised once.

Numba by itself has LLVM optimise every function and translate it into machine code, and again as part of each function
that calls it. A kernel whose functions lie in six layers would be compiled six times, of which only the last counts.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class Part(JITCodeLibrary):
    """What Numba makes of a function and of those that it calls, in LLVM's language; nothing of it can be called."""

    def whole(self) -> tuple[Any, bytes]:
        """LLVM's module, optimised, and the object file of its machine code."""
        super()._optimize_final_module()
        return self._final_module, self._codegen._tm.emit_object(self._final_module)

    def _optimize_final_module(self) -> None:
        """Is left to `whole`."""

    def _finalize_final_module(self) -> None:
        """As Numba has it, without handing the module on to be translated."""
        self._finalize_dynamic_globals()
        self._finalized = True

    @property
    def codegen(self) -> Any:
        """What Numba would tell the address of a function's environment."""
        return _Unasked()


class _Unasked:
    """Takes the place of Numba's engine for code that is never called from here."""

    def set_env(self, name: str, environment: object) -> None:
        """There is no such address."""


class Linking(Compiler):
    """Numba's compiler, of which the last step but one is left out: for `numba.njit(pipeline_class=…)`."""

    def define_pipelines(self) -> Any:
        """Numba's own steps, which put what they make into the library that they find."""
        self.state.library = Part(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return super().define_pipelines()
