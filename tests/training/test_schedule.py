import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplabv3.config import ORIGINAL_PHASES, Phase
from deeplabv3.training.schedule import learning_rate, num_epochs, num_steps, phase_at

PHASES = (Phase(epochs=3, learning_rate=0.1), Phase(epochs=2, learning_rate=0.01))


@given(st.integers(0, 29), st.floats(0, 2))
def test_rate_is_the_closed_form_in_the_first_phase(step, power):
    assert learning_rate(step, PHASES, 10, power) == 0.1 * (1 - step / 30) ** power


@given(st.integers(0, 19))
def test_second_phase_starts_anew(step):
    assert learning_rate(30 + step, PHASES, 10, 0.9) == 0.01 * (1 - step / 20) ** 0.9


def test_rate_falls_within_a_phase():
    rates = [learning_rate(step, PHASES, 10) for step in range(50)]
    assert rates[:30] == sorted(rates[:30], reverse=True)
    assert min(rates) > 0
    assert rates[30] == 0.01


def test_rate_behind_the_end_is_0():
    assert learning_rate(50, PHASES, 10) == 0


def test_original_protocol():
    """65 epochs from 1e-2 and 5 from 1e-3, with the 371 steps of 2,975 images in batches of 8."""
    assert num_epochs(ORIGINAL_PHASES, 371) == 70
    assert learning_rate(0, ORIGINAL_PHASES, 371) == 1e-2
    assert learning_rate(65 * 371, ORIGINAL_PHASES, 371) == 1e-3
    assert learning_rate(371 * 65 // 2, ORIGINAL_PHASES, 371) == pytest.approx(1e-2 * 0.5**0.9, rel=1e-3)


@pytest.mark.parametrize(("step", "phase"), [(0, 0), (29, 0), (30, 1), (49, 1), (99, 1)])
def test_phase_of_a_step(step, phase):
    assert phase_at(step, PHASES, 10) == phase


def test_phases_by_steps():
    """mmsegmentation's schedule: 80,000 steps from 1e-2 down to 1e-4; 215 whole epochs and a part of one."""
    phases = (Phase(steps=80_000, learning_rate=1e-2),)
    assert (num_steps(phases, 371), num_epochs(phases, 371)) == (80_000, 216)
    assert learning_rate(40_000, phases, 371, 0.9, 1e-4) == pytest.approx(1e-4 + 9.9e-3 * 0.5**0.9, rel=1e-12)
    assert learning_rate(79_999, phases, 371, 0.9, 1e-4) == pytest.approx(1e-4, rel=1e-2)


def test_warm_up_is_a_ramp_on_the_schedule():
    warm = (Phase(steps=100, learning_rate=0.1, warmup_steps=10), Phase(epochs=1, learning_rate=0.01, warmup_steps=2))
    cold = (Phase(steps=100, learning_rate=0.1), Phase(epochs=1, learning_rate=0.01))
    for step in range(10):
        assert learning_rate(step, warm, 10) == pytest.approx(learning_rate(step, cold, 10) * (step + 1) / 10)
    assert [learning_rate(step, warm, 10) for step in range(10, 100)] == [
        learning_rate(step, cold, 10) for step in range(10, 100)
    ]
    assert learning_rate(100, warm, 10) == 0.005


def test_schedule_waits_within_a_phase():
    phases = (Phase(steps=10, learning_rate=1.0), Phase(steps=10, learning_rate=0.1, warmup_steps=2))
    waited = [learning_rate(step, phases, 5, num_waited=3) for step in range(20)]
    plain = [learning_rate(step, phases, 5) for step in range(20)]
    assert waited[:10] == [plain[0]] * 3 + plain[:7]
    assert waited[10:] == [plain[10]] * 3 + plain[10:17]
