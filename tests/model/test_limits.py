"""What the process that reads foreign files may need and do."""

import json
import subprocess
import sys

import pytest

from deeplabv3.model.unpickling import limits
from tests.conftest import REPOSITORY

LIMITS = """
import json, resource, sys
from pathlib import Path
from deeplabv3.model.unpickling.limits import set_limits
keys = {name: getattr(resource, f"RLIMIT_{name}") for name in "CORE CPU FSIZE NOFILE AS".split()}
if sys.argv[1] == "low":
    del resource.RLIMIT_FSIZE
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 50))
    resource.setrlimit(resource.RLIMIT_CPU, (9, 9))
pages = int(Path("/proc/self/statm").read_text().split()[0])
if sys.argv[1] == "low":
    Path.read_text = lambda _: open("/none")  # as where there is no /proc
set_limits(100 << 20, 30)
found = {name: resource.getrlimit(key) for name, key in keys.items()}
in_use = pages * resource.getpagesize()
print(json.dumps([found["CORE"], found["CPU"], found["FSIZE"], found["NOFILE"], found["AS"][0] - in_use]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
@pytest.mark.parametrize("hard", ["high", "low"])
def test_limits_are_those_of_the_file(hard):
    command = [sys.executable, "-c", LIMITS, hard]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    core, cpu, size, handles, room = json.loads(found)
    assert core == [0, 0]
    assert cpu in ([[31, 32], [32, 33]] if hard == "high" else [[9, 9]])  # it has computed for a second at most
    assert hard == "low" or size == [(2 * 100 + 16) << 20] * 2
    assert handles == ([64, 64] if hard == "high" else [50, 50])
    # where it may read its size; what it needed more until the limit was set
    assert hard == "low" or 0 <= room - ((5 * 100 + 256) << 20) <= 8 << 20


GUARDED = """
import json, os, sys
from pathlib import Path
from deeplabv3.model.unpickling.limits import FORBIDDEN, forbid_everything_else
def ends(act):
    child = os.fork()
    if not child:
        forbid_everything_else(Path("target"))
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
Path("other").touch()
def opened(name, flags):
    return ends(lambda: os.open(name, flags))
print(json.dumps([
    [opened("other", os.O_RDONLY), opened("target", os.O_RDWR | os.O_CREAT | os.O_TRUNC), ends(lambda: os.getcwd())],
    [opened("other", flags) for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)],
    [ends(lambda: sys.audit(event + "x")) for event in FORBIDDEN],
]))
"""


def test_what_is_forbidden_ends_the_process(tmp_path):
    environment = {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", GUARDED]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    allowed, written, started = json.loads(found)
    assert set(allowed) == {0}
    assert set(written) == set(started) == {limits.FORBIDDEN_EXIT}
    assert len(started) == len(limits.FORBIDDEN) >= 20
