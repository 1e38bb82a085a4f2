"""What every run does alike: checkpoints, batches, logs, signals, called by a plain loop.

Import the modules by name (`from shared_metrics.runs import checkpoint`). This file imports
nothing, so that `process.configure_cpu()` can run before Paddle is loaded.
"""
