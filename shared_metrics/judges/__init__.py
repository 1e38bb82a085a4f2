"""Networks that say what a generated picture shows: its class, the class of each pixel, the
attributes of a face. Trained by `python -m shared_metrics.judges`, one loop for all.
"""
