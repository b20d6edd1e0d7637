"""Handlers as users with a type checker write them. Checked by scripts/check-sdk-python.sh with mypy, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Union

from oncecast import Consumer, Delivery, Outcome, Retry


def nothing(delivery: Delivery) -> None:
    raise Retry(f"not now, {delivery.consumer_id}", after=2.5)


def texts(delivery: Delivery) -> Dict[str, str]:
    return {"text": delivery.payload.decode()}


def mixed(delivery: Delivery) -> Optional[Dict[str, Union[int, bytes]]]:
    return {"number": delivery.number, "channel": delivery.channel or b""} if delivery.payload else None


def raw(delivery: Delivery) -> Dict[bytes, bytes]:
    return {b"payload": delivery.payload}


def any_outcome(delivery: Delivery) -> Outcome:
    return {"ok": True, "share": 0.5, "id": delivery.id}


async def coroutine(delivery: Delivery) -> Dict[str, str]:
    return {"text": delivery.payload.decode()}


class Worker:
    def __call__(self, delivery: Delivery) -> Outcome:
        return None


def consumers() -> None:
    Consumer(nothing)
    Consumer(texts, handler_timeout=30)
    Consumer(mixed)
    Consumer(raw)
    Consumer(any_outcome)
    Consumer(coroutine)
    Consumer(Worker())
    Consumer(lambda delivery: {"length": len(delivery.payload)})
    Consumer(nothing, tls_cert="c.pem", tls_key=Path("c.key"), tls_client_ca=None, link_secret_file=Path("secret"))
