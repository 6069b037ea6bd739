"""Several processes learn what one learns, to the last bits of float64."""

import functools

import pytest

from deeplabv3.data.sampling import Key, batch_keys, own_parts, part_size
from deeplabv3.errors import InputError
from deeplabv3.model.checkpoint import digest, read_checkpoint


@pytest.fixture(scope="module")
def learnt(ranks, tmp_path_factory):
    """What ten steps in float64 come to in each of so many processes."""

    @functools.cache
    def by(processes, *arguments):
        out = tmp_path_factory.mktemp("learnt")
        ended = ranks(processes, "learn", out, *arguments)
        assert ended["codes"] == [0] * processes, ended["err"]
        return [read_checkpoint(out / f"{rank}.safetensors") for rank in range(processes)]

    return by


def difference(ours, theirs):
    """The largest of any tensor, relative to its largest value."""
    assert ours.tensors.keys() == theirs.tensors.keys()
    return max(
        float((value - theirs.tensors[name]).abs().max() / theirs.tensors[name].abs().max().clamp(min=1e-3))
        for name, value in ours.tensors.items()
    )


@pytest.mark.parametrize(
    ("processes", "arguments"),
    [
        pytest.param(2, (True,), id="2 frozen"),
        pytest.param(4, (True,), id="4 frozen, an image each"),
        pytest.param(2, (True, 2), id="2 frozen, accumulation 2"),
        pytest.param(2, (False,), id="2 synchronised"),
        pytest.param(4, (False,), id="4 synchronised, an image each", marks=pytest.mark.slow),
    ],
)
def test_processes_learn_what_one_learns(learnt, processes, arguments):
    """Images are labelled to very different shares, one of them not at all; classes weigh differently."""
    (one,) = learnt(1, arguments[0])
    together = learnt(processes, *arguments)
    for other in together:
        assert difference(other, one) < 1e-12
        assert digest(other.tensors, "") == digest(together[0].tensors, "")  # statistics of batch norm among them
        assert other.record["losses"] == pytest.approx(one.record["losses"], rel=1e-12)
    moved = difference(one, learnt(1, not arguments[0])[0])
    assert moved > 1e-3  # the comparison can tell one run from another


def test_plain_batch_norm_is_not_what_one_learns(learnt):
    assert difference(learnt(2, False, 1, False)[0], learnt(1, False)[0]) > 1e-3


def test_accumulation_in_one_process_is_the_batch(learnt):
    assert difference(learnt(1, True, 2)[0], learnt(1, True)[0]) < 1e-12


@pytest.mark.parametrize("processes", [2, 3])
def test_global_batch_norm_is_that_of_the_whole_batch(ranks, tmp_path, processes):
    ended = ranks(processes, "normalise", tmp_path)
    assert ended["codes"] == [0] * processes, ended["err"]


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (4, 1), (2, 3), (6, 2)])
def test_each_sample_is_taken_once(train_config, monkeypatch, processes, accumulation):
    """Every process computes its own share; here one is asked for all of them."""
    config = train_config.__class__(**{**vars(train_config), "batch_size": 12, "accumulation": accumulation})
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    for name in ("LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    for epoch in range(2):
        for batch in batch_keys(30, config, epoch):
            taken: list[Key] = []
            for rank in range(processes):
                monkeypatch.setenv("RANK", str(rank))
                parts = own_parts(batch, config)
                assert [len(part) for part in parts] == [12 // processes // accumulation] * accumulation
                taken += [key for part in parts for key in part]
            assert taken == batch
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(InputError, match=f"batch_size is 12 .* 5 processes .* give a multiple of {5 * accumulation}"):
        part_size(config)
