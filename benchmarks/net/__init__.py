"""The network's benchmark: see `run_net.py`."""
