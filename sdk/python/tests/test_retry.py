"""A consumer's own policy for failed messages."""

import pytest
from scripted import Dispatcher, consumer_of

from oncecast import Consumer, Reject, Retry, frames
from oncecast.retry import RetryPolicy


def test_waits_are_those_of_the_dispatcher():
    policy = RetryPolicy("exponential:200ms..5m*4")
    waits = [round(policy.wait(delivery) * 1000) for delivery in range(2, 9)]
    assert waits == [200, 800, 3_200, 12_800, 51_200, 204_800, 300_000]
    assert policy.wait(65_535) == 300
    assert [RetryPolicy("fixed:1.5s").wait(n) for n in (2, 100)] == [1.5, 1.5]
    assert RetryPolicy("fixed:24h").delay_ms(1, 1.0) == 108_000_000


def test_jitter_only_lengthens_and_no_delay_is_left_open():
    policy = RetryPolicy("fixed:5s")
    assert (policy.delay_ms(1, 0.0), policy.delay_ms(7, 1.0)) == (5_000, 6_250)
    assert all(5_000 <= policy.delay_ms(1) <= 6_250 for _ in range(100))
    assert RetryPolicy("none").delay_ms(1) == 1


@pytest.mark.parametrize(
    "text",
    ["", "None", "5s", "fixed", "fixed:", "fixed:5", "fixed:0s", "fixed:25h", "fixed:1us", "fixed: 5s", "fixed:5s ",
     "exponential:1s..2s", "exponential:1s*2", "exponential:2s..1s*2", "exponential:1s..2s*0.9",
     "exponential:1s..2s*101", "exponential:1s..2s*inf", "exponential:1s..2s*2*2", "exponential:1s..2s..3s*2"],
)
def test_another_text_is_refused(text):
    with pytest.raises(ValueError, match="retry takes exponential:FIRST"):
        Consumer(print, retry=text)


def fail(delivery):
    if delivery.id == 1:
        raise Retry("later", after=3)
    if delivery.id == 2:
        raise Reject("never")
    raise Retry("busy") if delivery.id == 3 else ValueError("no luck")


async def fail_async(delivery):
    fail(delivery)


@pytest.mark.parametrize("handler", [fail, fail_async])
def test_the_policy_decides_where_the_handler_asks_for_no_delay(handler):
    with consumer_of(handler, retry="exponential:1s..1h*10") as consumer:
        dispatcher = Dispatcher(consumer)
        dispatcher.greet()
        for id, delivery, least, most in [
            (1, 1, 3_000, 3_000),
            (2, 1, frames.NACK_NEVER, frames.NACK_NEVER),
            (3, 1, 1_000, 1_250),
            (4, 3, 100_000, 125_000),
            (5, 65_535, 3_600_000, 4_500_000),
        ]:
            dispatcher.process(id, delivery=delivery)
            nack = dispatcher.next(frames.Nack)
            assert nack.id == id and least <= nack.delay_ms <= most, nack
