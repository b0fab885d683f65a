"""Noise-conditioned score-based speech enhancement."""

from sgmse.common.machine import complete_environment

complete_environment()  # before anything imports matplotlib or torch
