"""The time between checkpoints that loses least to saves and to repeated work."""

import math

# A cautious guess for Spot machines with GPUs; known better, it is given.
MEAN_TIME_BETWEEN_PREEMPTIONS_S = 4 * 3600.0
SHORTEST_INTERVAL_S = 30.0
LONGEST_INTERVAL_S = 1800.0
LARGEST_DELAY_SHARE = 0.02


def interval_s(
    save_time_s: float,
    mean_time_between_preemptions_s: float,
    *,
    delay_s: float = 0.0,
    shortest_s: float = SHORTEST_INTERVAL_S,
    longest_s: float = LONGEST_INTERVAL_S,
) -> float:
    """Young's and Daly's optimum √(2 δ M), within limits.

    Young, "A first order approximation to the optimum checkpoint interval" (CACM 1974): the time lost to
    saves, δ/τ, and to repeated work, τ/2M, is least in sum there. δ is the whole save, also the part beside
    the loop, as that takes cores and network from training.

    Args:
        save_time_s: δ.
        mean_time_between_preemptions_s: M; infinite for machines that are never taken.
        delay_s: The part of a save for which the loop waits: it stays within LARGEST_DELAY_SHARE of the
            interval, whatever `longest_s` is.
        shortest_s: Lower limit.
        longest_s: Upper limit.
    """
    optimum_s = math.sqrt(2.0 * save_time_s * mean_time_between_preemptions_s) if save_time_s else 0.0
    # A save must have ended when the next begins.
    return max(min(max(optimum_s, shortest_s), longest_s), save_time_s, delay_s / LARGEST_DELAY_SHARE)
