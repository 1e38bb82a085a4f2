"""What every run does alike: CPU threads, checkpoints, batches, logs, signals. Small functions that
a plain loop calls.

Import the modules by name (`from shared_metrics.runs import checkpoint`). This file imports
nothing, so that `process.configure_cpu()` can run before Paddle is loaded.
"""
