"""The command ``clsp``: one module for each family of commands.

Modules import torch and other rooms inside functions only, so that ``clsp --help`` is instant.
"""
