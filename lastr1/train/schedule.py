"""Learning rate over the steps of a job."""

import math


def cosine_rate(step: int, steps: int, peak: float, *, end: float, ramp: int) -> float:
    """Linear ramp from nothing, then a cosine from `peak` to `peak * end` at `steps`, and on at that rate."""
    if step < ramp:
        return peak * (step + 1) / ramp
    progress = min(1.0, (step - ramp) / max(1, steps - ramp))
    return peak * (end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2)
