"""Settings of all tests."""

import os

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # silences a warning of Ray about GPUs it does not have
