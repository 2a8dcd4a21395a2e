"""Figures of a server, by hand."""

from dataclasses import replace

import pytest

from lastr1.serve.metrics import Metrics, Timing

TIMING = Timing(
    queue_ms=1.0, infer_ms=8.0, total_ms=10.0, deadline_ms=40.0, batch=2, groups=1, cap=4, latents=2
)


def test_by_hand():
    """10 ms, 20 ms, and 50 ms (late, cut to 3 groups): mean thought (2 + 2 + 6) / 3."""
    metrics = Metrics(groups=4, latents_per_group=2)
    assert metrics.percentiles() == {}
    metrics.clients = 3
    metrics.refused["WireError"] += 5
    for timing in (
        TIMING,
        replace(TIMING, total_ms=20.0),
        replace(TIMING, total_ms=50.0, groups=3, cap=3, batch=1),
    ):
        metrics.answered(timing)
    # between order statistics: 0.95 * 2 = 1.9 of the way from 10 over 20 to 50
    assert metrics.percentiles() == pytest.approx({"p50_ms": 20.0, "p95_ms": 47.0, "p99_ms": 49.4})
    assert metrics.mean_latents() == pytest.approx(10 / 3)
    assert metrics.text().splitlines() == [
        "# HELP lastr1_clients connected clients",
        "# TYPE lastr1_clients gauge",
        "lastr1_clients 3",
        "# HELP lastr1_refused_total requests turned away",
        "# TYPE lastr1_refused_total counter",
        'lastr1_refused_total{reason="WireError"} 5',
        "# HELP lastr1_late_total decisions after their deadline",
        "# TYPE lastr1_late_total counter",
        "lastr1_late_total 1",
        "# HELP lastr1_capped_total decisions whose thought a deadline cut",
        "# TYPE lastr1_capped_total counter",
        "lastr1_capped_total 1",
        "# HELP lastr1_batch_size requests decided together",
        "# TYPE lastr1_batch_size summary",
        "lastr1_batch_size_sum 5",
        "lastr1_batch_size_count 3",
        "# HELP lastr1_decision_seconds from arrival to answer",
        "# TYPE lastr1_decision_seconds summary",
        'lastr1_decision_seconds{quantile="0.5"} 0.02',
        'lastr1_decision_seconds{quantile="0.95"} 0.047',
        'lastr1_decision_seconds{quantile="0.99"} 0.0494',
        "lastr1_decision_seconds_sum 0.08",
        "lastr1_decision_seconds_count 3",
        "# HELP lastr1_thought_latents latents of a thought",
        "# TYPE lastr1_thought_latents histogram",
        'lastr1_thought_latents_bucket{le="2"} 2',
        'lastr1_thought_latents_bucket{le="4"} 2',
        'lastr1_thought_latents_bucket{le="6"} 3',
        'lastr1_thought_latents_bucket{le="8"} 3',
        'lastr1_thought_latents_bucket{le="+Inf"} 3',
        "lastr1_thought_latents_sum 10",
        "lastr1_thought_latents_count 3",
    ]


def test_a_sum_that_has_grown_large_still_counts_every_decision():
    metrics = Metrics(groups=4, latents_per_group=2)
    metrics.answered(replace(TIMING, total_ms=1e9))
    metrics.answered(TIMING)
    assert "lastr1_decision_seconds_sum 1000000.01" in metrics.text().splitlines()


def test_only_the_last_decisions_make_percentiles():
    metrics = Metrics(groups=4, latents_per_group=2)
    metrics.answered(replace(TIMING, total_ms=1e6))
    for _ in range(1000):
        metrics.answered(TIMING)
    assert metrics.percentiles()["p99_ms"] == 10.0
    assert metrics.decisions == 1001


def test_a_policy_without_thoughts():
    metrics = Metrics(groups=0, latents_per_group=2)
    metrics.answered(replace(TIMING, groups=0, cap=0, latents=0))
    assert 'lastr1_thought_latents_bucket{le="0"} 1' in metrics.text()
    assert "lastr1_capped_total 0" in metrics.text()
