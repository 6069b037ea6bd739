"""How many processes are started where nobody says it."""

import os

import pytest

from deeplabv3.cores import given_or_cores, num_cores


def test_only_cores_that_may_be_used_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert num_cores() == 3


@pytest.mark.parametrize(("cores", "wanted"), [(4, 4), (None, 1)])
def test_systems_that_do_not_say_which(monkeypatch, cores, wanted):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert num_cores() == wanted


def test_what_is_given_is_taken(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert given_or_cores(0) == given_or_cores(0, pays=False) == 0
    assert given_or_cores(2) == given_or_cores(2, pays=False) == 2
    assert (given_or_cores(None), given_or_cores(None, pays=False)) == (3, 0)
