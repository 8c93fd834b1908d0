"""Triton's interpreter in half the time.

At every call of a function of a kernel it looks through all of `triton.language` for builtins to
replace, and finds none that the call of the kernel has left. Here it looks only where there are.
"""

from __future__ import annotations

import inspect

import pytest


@pytest.fixture(scope="session", autouse=True)
def an_interpreter_that_replaces_builtins_once():
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        yield
        return
    from triton.runtime import interpreter

    is_builtin, replace = interpreter.tl.core.is_builtin, interpreter._patch_builtin
    a_builtin: dict[object, str] = {}

    def replace_once(package, *rest):
        if package not in a_builtin:
            members = inspect.getmembers(package, is_builtin)
            a_builtin[package] = members[0][0] if members else "__doc__"
        if is_builtin(getattr(package, a_builtin[package])):
            replace(package, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_builtin", replace_once)
        yield
