"""Tests mirror src; `test_exactness` cuts across it."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads slow it where cores are busy
