"""The benchmarks of training and inference run as people run them, at a tiny size."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is what is compared with")
TINY = ("--crop", "33", "--batch", "2", "--steps", "1")


def run(script, *words, tiny=TINY):
    """The table and the JSON line that a script prints."""
    command = [sys.executable, REPOSITORY / "benchmarks" / script, *tiny, *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    return "\n".join(table), json.loads(last)


def test_short_form_and_page_name_every_script():
    folder = REPOSITORY / "benchmarks"
    scripts = {path.name for path in folder.glob("*.py")} - {"torchvision_peer.py"}
    short = set(re.findall(r"^ *(?:\w+=\S+ )?bench (\S+)", (folder / "short.sh").read_text(), re.MULTILINE))
    page = set(re.findall(r"^\| `(\S+)` \|", (folder / "README.md").read_text(), re.MULTILINE))
    assert short == page == scripts


def assert_is_documented_form(found):
    assert set(found) == {"machine", "rows"}
    assert found["machine"]["torch"]
    for row in found["rows"]:
        assert {"name", "ours", "peer", "unit", "ratio"} <= set(row)
        assert min(row["ours"], row["peer"], row["ratio"]) > 0


@pytest.mark.slow
def test_train_cpu_compares_equal_networks():
    words = ("--backbones", "resnet50", "--precisions", "float32", "--rounds", "1")
    table, found = run("train_cpu.py", *words)
    assert "logits of the two networks differ by" in table
    assert_is_documented_form(found)
    assert [row["unit"] for row in found["rows"]] == ["seconds a step", "MiB at the peak"]
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], abs=0.01)


@pytest.mark.slow
def test_train_gpu_runs_on_a_cpu():
    words = ("--device", "cpu", "--backbone", "resnet50", "--precisions", "float32", "--compile", "no")
    _, found = run("train_gpu.py", *words, "--warmup", "1", "--matrix", "256")
    assert_is_documented_form(found)
    (row,) = found["rows"]
    assert (row["name"], row["unit"]) == ("float32, as it is", "images a second")
    for one in row["details"].values():
        assert one["share"] > 0


def test_train_gpu_reports_what_failed(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    script = import_module("train_gpu")
    options = script.options_of([*TINY, "--device", "cpu", "--backbone", "resnet1"])
    found = script.in_own_process("ours", "float32", "no", options)
    assert "resnet1" in found["failed"]
    row = script.row("float32", {"ours": found, "torchvision": found, "tuned": found})
    assert (row["ours"], row["peer"], row["ratio"]) == (None, None, None)


def test_train_gpu_names_a_missing_device():
    command = [sys.executable, REPOSITORY / "benchmarks/train_gpu.py", "--device", "cuda:99"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("device is 'cuda:99'")


@pytest.mark.slow
def test_inference_compares_time_and_memory():
    pytest.importorskip("onnxruntime")
    tiny = (
        "--backbone",
        "resnet50",
        "--size",
        "64",
        "96",
        "--matrix",
        "256",
        "--frames",
        "1",
        "--output-strides",
        "16",
    )
    table, found = run("inference.py", "--precisions", "float32", tiny=tiny)
    assert all(
        f"stride 16, float32, {way} " in table
        for way in ("ours", "ours, folded", "ours, onnx", "ours, pt2", "torchvision", "smp")
    )
    assert_is_documented_form(found)
    assert [row["unit"] for row in found["rows"]] == ["ms a frame", "MiB at the peak"] * 4
    for row in found["rows"]:
        key = "ms" if row["unit"] == "ms a frame" else "mib"
        assert row["peer"] == min(row["details"][peer][key] for peer in ("torchvision", "smp"))


@pytest.mark.slow
def test_overlap_measures_the_waiting_of_a_run():
    table, found = run("overlap.py", "1", "96", tiny=())
    assert "at 100%" in table
    assert len(found["rows"]) == 4
    for row in found["rows"]:
        assert 0 <= row["ours"] <= 1
        assert row["unit"] == "share of the time"
