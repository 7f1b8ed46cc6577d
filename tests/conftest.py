"""What holds for the tests of all tiers."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, and says nothing of what is tested.
settings.register_profile("tickhub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tickhub")
