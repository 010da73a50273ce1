"""The fuzzers led by which lines of `pad_cli` an input reaches: `make fuzz-guided` gives pytest this as a plug-in.

[Atheris](https://github.com/google/atheris) makes bytes that take new ways through the code; hypothesis makes a
property's arguments of them (`fuzz_one_input`). Only where an example takes milliseconds does that find more than
chance does.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import tempfile
from typing import Any

import atheris
import pytest
from hypothesis import given, settings

_SECONDS = os.environ.get("PAD_FUZZ_SECONDS", "600")

with atheris.instrument_imports(include=["pad_cli"], enable_loader_override=False):
    import pad_cli

    for _module in pkgutil.walk_packages(pad_cli.__path__, "pad_cli."):
        if not _module.name.endswith("__main__"):
            importlib.import_module(_module.name)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a fuzzer in a process of its own, since libFuzzer ends the one that it runs in; other tests as ever."""
    if pyfuncitem.get_closest_marker("fuzz") is None:
        return None
    fixtures = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if not (child := os.fork()):
        try:
            _fuzz(pyfuncitem.obj.hypothesis, fixtures)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, "the fuzzer found what is printed below"
    return True


def _fuzz(test: Any, fixtures: dict[str, Any]) -> None:
    drawn: dict[str, Any] = {}

    @settings(database=None, deadline=None)
    @given(**test._given_kwargs)
    def holds(**arguments: Any) -> None:
        drawn.update(arguments)
        test.inner_test(**fixtures, **arguments)

    def one_input(content: bytes) -> None:
        try:
            holds.hypothesis.fuzz_one_input(content)
        except BaseException:
            print(f"\nThe property fails with {drawn}", flush=True)
            raise

    options = [
        f"-max_total_time={_SECONDS}",
        "-max_len=8192",
        "-timeout=60",
        f"-artifact_prefix={tempfile.gettempdir()}/",
    ]
    atheris.Setup(["pytest", f"-artifact_prefix={tempfile.gettempdir()}/", *options], one_input)
    atheris.Fuzz()
