"""`python -m benchmarks` is `python benchmarks/run.py`: both start the same command."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE)  # as if run.py had been started itself
runpy.run_path(str(HERE / "run.py"), run_name="__main__")
