"""Memory that runs out ends a run with one line, and the run goes on as if nothing had happened."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from deeplabv3.errors import CheckpointError, DeviceMemoryError, is_out_of_memory
from deeplabv3.evaluation import evaluate
from deeplabv3.exits import guarded
from deeplabv3.model.checkpoint import encode_checkpoint, read_checkpoint, write_checkpoint
from deeplabv3.training import loop, page, step, validation
from deeplabv3.training.endings import too_large_to_train, too_large_to_validate
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from tests.disk import KILL
from tests.training.conftest import CPU, final_state
from tests.training.test_disk import LAST, data, nth, state_of, trial, whole  # noqa: F401  # fixtures

ERRORS = {
    "accelerator": torch.OutOfMemoryError("CUDA out of memory"),
    "Python": MemoryError(),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    "C++": RuntimeError("std::bad_alloc"),
    "oneDNN": RuntimeError("could not create a primitive"),
}


def failing(real, which, error):
    """A function whose `which`-th call, from 1, raises."""
    count = 0

    def replaced(*arguments, **options):
        nonlocal count
        count += 1
        if count == which:
            raise error
        return real(*arguments, **options)

    return replaced


@pytest.mark.parametrize(
    ("kind", "which"),
    [
        ("Python", 3),
        ("torch", 6),
        *(pytest.param(kind, which, marks=pytest.mark.slow) for kind in ERRORS for which in (1, 4, 8)),
    ],
)
def test_short_memory_in_a_step_is_one_line_and_the_run_goes_on(whole_run, tmp_path, monkeypatch, kind, which):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", failing(step.train_step, which, ERRORS[kind]))
        with pytest.raises(DeviceMemoryError, match=r"^the memory of cpu is too small for batch_size 3") as caught:
            train(config)
    assert "lower batch_size to 1 or crop_size" in str(caught.value)
    assert "\n" not in str(caught.value)
    last = RunPaths(config).last
    assert (which <= 2) == (not last.exists())
    if last.exists():
        assert len(read_checkpoint(last).record["position"]["history"]) == (which - 1) // 2
    train(replace(config, resume=last.exists()))
    assert final_state(config) == final_state(whole_run[0])


def test_short_memory_in_a_validation_ends_the_run_saved(whole_run, tmp_path, monkeypatch):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(validation, "score_model", failing(evaluate.score_model, 2, MemoryError()))
        with pytest.raises(DeviceMemoryError, match="of 1 whole frames at once; .*; the run is saved at epoch 2 of 4"):
            train(config)
    assert read_checkpoint(RunPaths(config).last).record["position"]["batch"] == 2
    train(replace(config, resume=True))
    assert final_state(config) == final_state(whole_run[0])


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be ...",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_texts_of_an_accelerator_that_others_fill_are_known(text):
    """As torch's source has them."""
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("could not create a primitive")])
def test_other_errors_are_not_taken_for_short_memory(train_config, monkeypatch, error):
    assert not is_out_of_memory(error)
    monkeypatch.setattr(loop, "train_step", failing(step.train_step, 1, error))
    with pytest.raises(type(error), match=str(error)):
        train(train_config)


def test_smaller_batch_that_is_named_can_be_divided(train_config, monkeypatch):
    def said(**values):
        return too_large_to_train(replace(train_config, **values), CPU)

    assert "lower batch_size to 6 or crop_size, raise accumulation" in said(batch_size=12)
    assert "lower batch_size to 4 or crop_size" in said(batch_size=12, accumulation=4)
    assert "48; lower crop_size, add --recompute" in said(batch_size=4, accumulation=4)
    assert "lower eval_batch_size to 4" in too_large_to_validate(replace(train_config, eval_batch_size=8), CPU)


@pytest.mark.parametrize("kind", ERRORS)
def test_short_memory_anywhere_is_one_line(capsys, kind):
    def run():
        raise ERRORS[kind]

    assert guarded("deeplabv3 evaluate", run) == 2
    assert capsys.readouterr().err == (
        "deeplabv3 evaluate: error: memory ran out; end other programs, or ask for less at once\n"
    )


def test_whole_checkpoint_is_not_called_damaged_where_memory_is_short(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a.safetensors", {"model/a": torch.ones(3)}, {})

    def short(*_, **__):
        raise ERRORS["torch"]

    monkeypatch.setattr(safetensors.torch, "load", short)
    with pytest.raises(DeviceMemoryError, match=r"^memory ran out while .*a.safetensors was read") as caught:
        read_checkpoint(tmp_path / "a.safetensors")
    assert not isinstance(caught.value, CheckpointError)


def test_room_for_a_checkpoint_is_asked_for_before_it_is_made(monkeypatch):
    """safetensors would panic."""
    monkeypatch.setattr(safetensors.torch, "save", lambda *_: pytest.fail("it was called"))
    monkeypatch.setattr(torch, "empty", failing(torch.empty, 1, ERRORS["torch"]))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        encode_checkpoint({"model/a": torch.ones(3)}, {})


# What the system itself refuses.


@pytest.fixture(scope="module")
def begun(ranks, data, whole, tmp_path_factory):  # noqa: F811
    """A run that was killed when its first epoch was saved."""
    run = type(whole)(ranks, data, tmp_path_factory.mktemp("begun"))
    run.on_disk(nth(whole.calls(), f"rename {LAST}", 1) + 1, KILL)
    return run


def resumed_with(fault, begun, run):
    """Go on within limits; how that ended."""
    shutil.copytree(begun.dir, run.dir)
    return run("--resume", fault=fault)


def require_one_line(code, said, begun, run):
    assert code == 2
    assert said.startswith("deeplabv3 train: error: ")
    assert "memory" in said
    assert said.count("\n") == 1
    if "batch_size" in said and "saved" not in said:  # of training or of saving
        assert state_of(run.last) == state_of(begun.last)


def test_short_memory_for_the_page_is_told_of_a_run_that_is_saved(train_config, monkeypatch):
    config = replace(train_config, phases=train_config.phases[1:], report=True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_run_page", failing(page.write_run_page, 1, MemoryError()))
        with pytest.raises(DeviceMemoryError, match="page and plots of a run that is finished and saved; .* --resume"):
            train(config)
    train(replace(config, resume=True))
    assert (config.run_dir / "report" / "index.html").exists()


def test_limit_of_address_space(trial, begun, whole):  # noqa: F811
    run = trial()
    code, said = resumed_with({"limits": {"RLIMIT_AS": 20_000_000}}, begun, run)
    require_one_line(code, said, begun, run)
    assert "the memory of cpu is too small for batch_size 2 with crops of 32x48; lower batch_size to 1" in said
    run.require_goes_on(whole)


@pytest.mark.slow
def test_every_limit_of_address_space(trial, begun, whole):  # noqa: F811
    """Until the run ends well, some megabytes at a time. At two of them the gradients of torch 2.13 crash."""
    codes = [2]
    while codes[-1]:
        run = trial()
        code, said = resumed_with({"limits": {"RLIMIT_AS": 4_000_000 * len(codes)}}, begun, run)
        if code == -signal.SIGSEGV:
            assert state_of(run.last) == state_of(begun.last)
        elif code:
            require_one_line(code, said, begun, run)
        run.require_goes_on(whole)
        codes.append(code)
    assert codes.count(2) > 20
    assert codes.count(-signal.SIGSEGV) <= 4
    print(f"{len(codes) - 1} trials, {codes.count(-signal.SIGSEGV)} crashes")  # for the record, with -s


@pytest.fixture
def cgroup():
    """A control group of memory, where the system lets one be made."""
    folder = Path("/sys/fs/cgroup/memory/deeplabv3_test")
    if not os.access(folder.parent, os.W_OK):
        pytest.skip("a control group of memory (version 1) cannot be made here")
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.mark.slow
def test_run_that_the_system_kills_for_its_memory(trial, begun, whole, cgroup):  # noqa: F811
    """It gets SIGKILL and says nothing."""
    ends = []
    for megabytes in range(8, 200, 8):
        run = trial()
        (cgroup / "memory.limit_in_bytes").write_text(str(megabytes * 1_000_000))
        code, said = resumed_with({"cgroup": str(cgroup)}, begun, run)
        assert (code, said) in ((-9, ""), (0, ""))
        ends.append(code)
        run.require_whole_checkpoints(whole, [])
        run.require_goes_on(whole)
    assert ends.count(-9) >= 5
    print(f"{len(ends)} trials, {ends.count(-9)} killed")  # for the record, with -s
