"""test.py under the name that PaddleCV gave it."""

from shared_metrics.process import command
from test import main

if __name__ == "__main__":
    command(main)()
