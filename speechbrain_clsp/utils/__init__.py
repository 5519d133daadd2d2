"""Small needs that every room shares: files, and later distributed, HTML and plots.

It imports nothing else of the package.
"""

from speechbrain_clsp.utils.files import sha256_of_file

__all__ = ["sha256_of_file"]
