"""A worker in Python: oncecast-consumer --handler exec -- python3 worker.py

Each line of standard input is a message, each line of standard output the answer to it.
"""
import json
import sys


def work(payload):
    """The fields to record; None is left out. Replace this."""
    order = json.loads(payload)
    return {"message_id": order.get("message_id"), "length": len(payload)}


for line in sys.stdin:
    message = json.loads(line)
    try:
        answer = {"ok": work(message["payload"])}
    except (AttributeError, ValueError) as error:  # it would fail again
        answer = {"reject": f"{type(error).__name__}: {error}"}
    except OSError as error:
        answer = {"retry": str(error), "after_ms": 5000}
    print(json.dumps(answer), flush=True)
