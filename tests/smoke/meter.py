"""Print which meter this Python uses. The exit code is 1 if it is not the one named as the argument, C or Python."""

import os
import sys

from openrtc_introspect_core._native import METER_VARIABLE, meter, native, trouble

print(f"meter: {meter}, {native.__file__ if native else 'no module in C'}, Python {sys.version.split()[0]}")
expected = sys.argv[1]
if meter != expected:
    why = trouble or f"{METER_VARIABLE}={os.environ.get(METER_VARIABLE, '')}"
    sys.exit(f"the meter in {expected} is to be used, not the one in {meter}: {why}")
