"""Runs side by side: result records found (`records`), ranked where they compare (`ranking`), and
shown as Markdown, CSV (`text`) and one HTML page (`page`). Nothing here needs Paddle.
"""
