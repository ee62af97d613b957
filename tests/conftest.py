"""What holds for all of these tests."""

from hypothesis import HealthCheck, settings

# How fast an example is made or tried says something about the machine, and nothing about the program. The examples are
# the same in every run: a run that fails can be had again.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
