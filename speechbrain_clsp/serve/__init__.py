"""An HTTP service around a model, the page that it serves, and a client for trainers.

The service needs the extra ``serve``. :class:`RewardClient` needs only NumPy: importing it imports
neither torch nor a web framework.
"""

from typing import Any

from speechbrain_clsp.serve.client import RewardClient, Rewards, ServiceError
from speechbrain_clsp.serve.limits import Limits

__all__ = ["Limits", "RewardClient", "Rewards", "ServiceError", "StyleService", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "StyleService":
        from speechbrain_clsp.serve.service import StyleService

        return StyleService
    if name == "create_app":
        from speechbrain_clsp.serve.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
