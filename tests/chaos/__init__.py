"""Real processes that are killed, stopped and cut off, and the proof from their histories that no record is lost.

python -m chaos --help, or ./polystill chaos --help.
"""
