"""The simulation of Lambda's concurrency, held against what queueing theory knows."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location(
        "scale", Path(__file__).parents[1] / "benchmarks" / "studies" / "scale.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_request_is_answered_or_throttled_and_new_environments_are_late(scale):
    service = np.full(100, 0.02)
    outcome = scale.simulate(200, 30, service, scale.Limits(1000, 0.5))
    assert outcome.throttled == 0
    assert len(outcome.seconds) == pytest.approx(200 * 30, rel=0.05)
    assert (outcome.seconds > 0.5).sum() == outcome.started > 0
    assert set(outcome.seconds.round(6)) == {0.02, 0.52}


def test_a_limit_throttles_what_erlangs_formula_says(scale):
    # Erlang B: 8 servers offered 10 erlangs refuse 33.8 %. Starts that cost nothing leave the formula alone.
    service = np.random.default_rng(1).exponential(0.1, 100_000)
    outcome = scale.simulate(100, 200, service, scale.Limits(8, 0.0))
    assert outcome.throttled / (outcome.throttled + len(outcome.seconds)) == pytest.approx(0.338, abs=0.02)
    assert outcome.most == 8


def test_the_scaling_rate_bounds_how_many_start(scale):
    outcome = scale.simulate(20_000, 5, np.full(10, 1.0), scale.Limits(100_000, 0.0))
    per, seconds = scale.SCALING
    assert outcome.started <= per + per * 5 / seconds + 1
    assert outcome.throttled > 0


def test_an_environment_that_was_idle_too_long_starts_anew(scale):
    seldom = scale.simulate(1 / 5000, 200_000, np.full(10, 0.02), scale.Limits(10, 0.5), seed=3)
    often = scale.simulate(1 / 50, 2_000, np.full(10, 0.02), scale.Limits(10, 0.5), seed=3)
    assert seldom.started / len(seldom.seconds) > 0.8
    assert often.started <= 3
