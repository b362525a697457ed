"""Settings of all tests."""

import os

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # silences a warning of Ray about GPUs it does not have
# A payment gets five minutes here, not 50 ms, so that a slow machine changes no answer; tests of deadlines set theirs.
os.environ.setdefault("RINGWATCH_DEADLINE_MS", "300000")
