"""Consumers for Oncecast, consumer groups for Redis Pub/Sub. A consumer talks to dispatchers only, not to Redis.

>>> from oncecast import Consumer
>>> def handle(delivery):
...     return {"length": len(delivery.payload)}
>>> Consumer(handle, group="messages", listen="127.0.0.1:6969").run()  # doctest: +SKIP
"""

from .consumer import Consumer
from .delivery import Delivery, Outcome, Reject, Retry

__all__ = ["Consumer", "Delivery", "Outcome", "Reject", "Retry"]
