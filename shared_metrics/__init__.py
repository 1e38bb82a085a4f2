"""What must be the same in every paper folder for results to be comparable.

That is scores, weights and how a run is kept. Importing the package imports nothing else (Paddle
least of all: `process.configure_cpu()` has to come first).
"""

__version__ = "0.1.0"
