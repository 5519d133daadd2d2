"""The parts of ``benchmarks/gpu.py``, one module each.

A part is a module with ``rows(setting)``, which yields (name, function) pairs; a function returns
the row's figures. ``PARTS`` gives the parts in order, with their portions of the time.
"""

PARTS = {"correctness": 140, "encoding": 110, "training": 140, "loss": 45, "reward": 45}
