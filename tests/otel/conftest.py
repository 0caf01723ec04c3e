"""The helpers of the end-to-end tests, for tests beside a real collector and a real Prometheus."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
