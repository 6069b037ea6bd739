"""Faults put into the guards, one at a time: for each, a test has to fail (mutation testing).

    python -m tests.mutants [--sample 100] [--seed 0] [deeplabv3/data/pngs.py ...]

It prints every fault that no test notices, and a table; it fails if fewer than nine of ten are noticed. What faults
there are is said in `tests.faults`; those that change nothing are listed, with the reason, in `tests.equivalent`.

What is changed is a copy of the repository, so that processes which tests start see the fault too. Each fault gets a
process forked from this one, which has torch loaded; it runs the tests that reach the changed line, the fastest first,
up to the first that fails. mutmut does much of this as well, but leaves out what guards consist of: limits that are
constants of a module, functions under a decorator, and calls that are gone.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis  # noqa: F401  # what is forked has what takes long to import
import matplotlib.figure  # noqa: F401
import pytest
import safetensors.torch  # noqa: F401
import torch
from PIL import Image

from tests.equivalent import EQUIVALENT
from tests.faults import REPOSITORY, Fault, faults_of

NEEDED = 0.9
"""Share of the faults that tests have to notice."""

_PICTURES = ("tests/data/test_guards.py", "tests/data/test_pngs.py", "tests/data/test_images.py",
             "tests/data/test_checking.py")  # fmt: skip
_PACKS = ("tests/data/test_packing.py", "tests/data/test_packed.py")
_CHECK = ("tests/data/test_findings.py", "tests/data/test_checking.py")
_PICKLES = ("tests/model/test_guards.py", "tests/model/test_unpickling.py", "tests/model/test_foreign.py",
            "tests/model/test_hostile.py", "tests/model/test_limits.py")  # fmt: skip
GUARDS = {  # a module and the tests of it
    "deeplabv3/data/pngs.py": _PICTURES,
    "deeplabv3/data/formats.py": _PICTURES,
    "deeplabv3/data/headers.py": _PICTURES,
    "deeplabv3/data/decoding.py": _PICTURES,
    "deeplabv3/data/findings.py": _CHECK,
    "deeplabv3/data/checking.py": (*_CHECK, "tests/data/test_verifying.py"),
    "deeplabv3/data/surveying.py": _CHECK,
    "deeplabv3/data/verifying.py": ("tests/data/test_verifying.py", *_PACKS),
    "deeplabv3/data/workers.py": ("tests/data/test_watching.py", "tests/data/test_workers.py"),
    **{f"deeplabv3/model/unpickling/{name}.py": _PICKLES
       for name in ("__init__", "containers", "contents", "convert", "instructions", "limits", "pickles")},
    "deeplabv3/model/checkpoint.py": ("tests/model/test_checkpoint.py", "tests/model/test_integrity.py"),
    "deeplabv3/files.py": ("tests/test_files.py", *_PACKS),
    "deeplabv3/training/position.py": ("tests/training/test_position.py", "tests/training/test_restoring.py",
                                        "tests/training/test_controls.py"),
    "deeplabv3/training/step.py": ("tests/training/test_outcome.py", "tests/training/test_step.py",
                                   "tests/training/test_numbers.py", "tests/training/test_repeated.py"),
}  # fmt: skip

_MOST_BYTES = 8 << 30  # a fault in a limit of memory must not take that of the whole machine
_BROKEN = 99  # exit code of a process that failed by itself
_ELSEWHERE = ("", 0)  # stands among a test's lines for all that processes run which it starts


class Reach(NamedTuple):
    """What a test runs of the guards, and how long it takes."""

    lines: set[tuple[str, int]]
    seconds: float


class Recorder:
    """A plugin of pytest that notes which lines of the guards each test runs."""

    def __init__(self, copy: Path) -> None:
        self.modules = {str(copy / module): module for module in GUARDS}
        self.current: set[tuple[str, int]] = set()
        self.of_fixture: dict[str, set[tuple[str, int]]] = {}
        self.reach: dict[str, Reach] = {}
        sys.addaudithook(self.listen)

    def listen(self, event: str, _: Any) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            self.current.add(_ELSEWHERE)

    def trace(self, frame, event, _):
        module = self.modules.get(frame.f_code.co_filename)
        if module is None:
            return None
        if event == "line":
            self.current.add((module, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.current, start = set(), time.perf_counter()
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        result = yield
        sys.settrace(None)
        shared = [self.of_fixture.get(name, set()) for name in item.fixturenames]
        self.reach[item.nodeid] = Reach(self.current.union(*shared), time.perf_counter() - start)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        if fixturedef.scope == "function":
            return (yield)
        own, self.current = self.current, self.of_fixture.setdefault(fixturedef.argname, set())
        result = yield
        self.current = own
        return result


class Choice:
    """A plugin of pytest that runs some tests in an order of its own."""

    def __init__(self, tests: list[str]) -> None:
        self.rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda item: self.rank[item.nodeid])


def in_a_process(copy: Path, files: list[str], plugin: Any, seconds: float) -> int:
    """Run tests of the copy in a forked process; 0 where all pass."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            log = os.open(copy / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os._exit(_run_tests(copy, files, plugin))
        finally:
            traceback.print_exc()
            os._exit(_BROKEN)
    try:
        _, status = os.waitpid(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests have left, or all of it after Ctrl-C
    code = os.waitstatus_to_exitcode(status)
    if code == _BROKEN:
        raise RuntimeError((copy / "log").read_text())
    return code


def _run_tests(copy: Path, files: list[str], plugin: Any) -> int:
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)
    if isinstance(plugin, Choice):  # of two faults within a second, the second would be taken for the first
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "deeplabv3")]:
        del sys.modules[name]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(copy / "tmp")]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main([*options, *files], plugins=[plugin]))
    if isinstance(plugin, Recorder):
        reach = {test: [sorted(own.lines), own.seconds] for test, own in plugin.reach.items()}
        (copy / "reach").write_text(json.dumps(reach))
    return code


def reaches(copy: Path, files: list[str]) -> dict[str, dict[str, Reach]]:
    """What each test of each file runs of the guards, all of them being as they are."""
    found = {}
    for file in files:
        if in_a_process(copy, [file], Recorder(copy), 1800) != 0:
            raise SystemExit(f"{(copy / 'log').read_text()}\n{file} fails without any fault; mend that first")
        read = json.loads((copy / "reach").read_text())
        found[file] = {
            test: Reach({(module, line) for module, line in own}, seconds) for test, (own, seconds) in read.items()
        }
    return found


def outcome(copy: Path, fault: Fault, reach: dict[str, dict[str, Reach]]) -> str:
    """What the tests make of a fault: "failed", "hung" or "unnoticed"."""
    all_tests = {test: own for file in GUARDS[fault.module] for test, own in reach.get(file, {}).items()}
    lines = {(fault.module, line) for line in fault.lines}
    direct = [test for test, own in all_tests.items() if own.lines & lines or not lines]
    apart = [test for test, own in all_tests.items() if _ELSEWHERE in own.lines and test not in direct]
    tests = [*sorted(direct, key=lambda test: all_tests[test].seconds), *apart]
    if not tests:
        return "unnoticed"
    path = copy / fault.module
    whole = path.read_text()
    path.write_text(fault.source)
    try:
        seconds = 15 + 2 * sum(all_tests[test].seconds for test in tests)
        code = in_a_process(copy, sorted({test.split("::")[0] for test in tests}), Choice(tests), seconds)
    finally:
        path.write_text(whole)
    if code == -signal.SIGALRM:
        return "hung"
    return "unnoticed" if code in (0, 5) else "failed"  # 5: none was run


def main(words: list[str] | None = None) -> tuple[list[str], int]:
    """Try faults and print a table; returned are those that no test notices, and how many were tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", help="files of the package; all guards if there are none")
    parser.add_argument("--sample", type=int, help="try so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    options = parser.parse_args(words)
    chosen = options.modules or list(GUARDS)
    if other := [module for module in chosen if module not in GUARDS]:
        parser.error(f"{', '.join(other)}: not among the guards, which are {', '.join(GUARDS)}")
    torch.set_num_threads(1)
    Image.init()
    faults = [fault for module in chosen for fault in faults_of(module)]
    known = {(fault.module, fault.change) for fault in faults}
    if gone := [key for key in EQUIVALENT if key[0] in chosen and key not in known]:
        raise SystemExit(f"tests.equivalent lists what is no fault any more: {gone}")
    num_excluded = len(faults)
    faults = [fault for fault in faults if (fault.module, fault.change) not in EQUIVALENT]
    num_excluded -= len(faults)
    if options.sample:
        faults = random.Random(options.seed).sample(faults, min(options.sample, len(faults)))
    tried: dict[Fault, str] = {}
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        contextlib.suppress(KeyboardInterrupt),
    ):  # which shows what there is
        copy = Path(folder) / "copy"
        shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".*", "*.pth", "demo", "build"))
        reach = reaches(copy, sorted({file for fault in faults for file in GUARDS[fault.module]}))
        for module in chosen:
            for stale in (copy / module).parent.glob(f"__pycache__/{Path(module).stem}.*"):
                stale.unlink()
        for fault in faults:
            tried[fault] = outcome(copy, fault, reach)
            if tried[fault] == "unnoticed":
                print(f"{fault.module}: {fault.change}", flush=True)
            if len(tried) % 50 == 0:
                print(f"{len(tried)} of {len(faults)} tried", flush=True)
    _print_table(tried, num_excluded, time.perf_counter() - start)
    unnoticed = [fault for fault, found in tried.items() if found == "unnoticed"]
    return [f"{fault.module}: {fault.change}" for fault in unnoticed], len(tried)


def _print_table(tried: dict[Fault, str], num_excluded: int, seconds: float) -> None:
    print(f"{'module':<50}{'faults':>8}{'failed':>9}{'hung':>6}{'noticed':>9}")
    for module in [*dict.fromkeys(fault.module for fault in tried), "all"]:
        found = [outcome for fault, outcome in tried.items() if module in ("all", fault.module)]
        failed, hung = (found.count(outcome) for outcome in ("failed", "hung"))
        print(f"{module:<50}{len(found):>8}{failed:>9}{hung:>6}{(failed + hung) / len(found):>9.1%}")
    print(f"{num_excluded} that change nothing were left out; {seconds:.0f} s")


if __name__ == "__main__":
    unnoticed, num_tried = main()
    sys.exit(len(unnoticed) > (1 - NEEDED) * num_tried)
