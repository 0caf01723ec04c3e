"""Every quantized type against the gguf package: random blocks, read by the plain dequantizer and through the packed layout."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

PROGRAM = Path(os.environ["MLXS_BUILD_DIR"]) / "tests" / "dequantize_rows"
COLUMNS = 768
ROWS = 50
# Where the f16 scales of a block stand: random bytes there could be NaN or overflow when multiplied out.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "MXFP4": [],
    "F32": [],
    "F16": [],
    "BF16": [],
}


def random_rows(name, random):
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    if elements == 1:
        values = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
        if name == "F16":
            return values.astype(np.float16).view(np.uint8)
        if name == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.view(np.uint8)
    blocks = random.integers(0, 256, size=(ROWS * COLUMNS // elements, size), dtype=np.uint8)
    for offset in SCALES[name]:
        scales = random.normal(scale=0.02, size=(len(blocks), 1)).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] %= 250  # the upper ones overflow; 0 and 1 are subnormal scales
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("name", SCALES)
def test_matches_gguf(name):
    rows = random_rows(name, np.random.default_rng(7))
    expected = dequantize(rows.reshape(ROWS, -1), GGMLQuantizationType[name]).reshape(ROWS, COLUMNS)
    result = subprocess.run([PROGRAM, name, str(COLUMNS)], input=rows.tobytes(), capture_output=True, check=True)
    plain, packed = np.frombuffer(result.stdout, np.float32).reshape(2, ROWS, COLUMNS)
    # One rounding of the last multiplication or addition may differ where the compiler fuses them.
    largest = np.abs(expected).reshape(ROWS, -1, 32).max(axis=-1).repeat(32, axis=-1).reshape(ROWS, COLUMNS)
    np.testing.assert_array_less(np.abs(plain - expected), largest * 2e-6 + 1e-45)
    # The packed layout multiplies the two-level scales of K types out to f16 (2^-11); the min may cancel against the codes.
    error = 0 if not name.endswith("_K") else 2 * 2.0**-11
    reach = 2 * np.abs(expected).max() if error else largest
    np.testing.assert_array_less(np.abs(packed - expected), reach * (error + 2e-6) + 1e-45)
