/** A consumer's own policy for failed messages. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { NACK } from '../src/frames.js';
import { Consumer, Reject, Retry } from '../src/index.js';
import { RetryPolicy } from '../src/retry.js';
import { started } from './support/consumer.js';
import { Dispatcher } from './support/dispatcher.js';

test('waits are those of the dispatcher', () => {
  const policy = new RetryPolicy('exponential:200ms..5m*4');
  assert.deepEqual([2, 3, 4, 5, 6, 7, 8, 65_535].map((delivery) => policy.wait(delivery)),
    [200, 800, 3_200, 12_800, 51_200, 204_800, 300_000, 300_000]);
  assert.equal(new RetryPolicy('fixed:1.5s').wait(2), 1_500);
  assert.equal(new RetryPolicy('fixed:24h').delayMs(1, 1), 108_000_000);
});

test('jitter only lengthens, and no delay is left open', () => {
  const policy = new RetryPolicy('fixed:5s');
  assert.deepEqual([policy.delayMs(1, 0), policy.delayMs(7, 1)], [5_000, 6_250]);
  const delay = policy.delayMs(1);
  assert.ok(delay >= 5_000 && delay <= 6_250);
  assert.equal(new RetryPolicy('none').delayMs(1), 1);
});

test('another text is refused', () => {
  const wrong = [
    '', 'None', '5s', 'fixed', 'fixed:', 'fixed:5', 'fixed:0s', 'fixed:25h', 'fixed:1us', 'fixed: 5s', 'fixed:5s ',
    'exponential:1s..2s', 'exponential:1s*2', 'exponential:2s..1s*2', 'exponential:1s..2s*0.9',
    'exponential:1s..2s*101', 'exponential:1s..2s*inf', 'exponential:1s..2s*2*2', 7, null,
  ];
  for (const retry of wrong) {
    assert.throws(() => new Consumer(() => {}, { retry }), /^TypeError: retry is not exponential:FIRST/, `${retry}`);
  }
});

test('the policy decides where the handler asks for no delay', async (t) => {
  const fails = {
    1: () => { throw new Retry('later', { afterMs: 3_000 }); },
    2: () => { throw new Reject('never'); },
    3: () => { throw new Retry('busy'); },
    4: () => Promise.reject(new Error('no luck')),
    5: () => { throw new Error('no luck'); },
  };
  const consumer = await started(t, (delivery) => fails[delivery.id](), { retry: 'exponential:1s..1h*10' });
  const dispatcher = await Dispatcher.leading(consumer);
  for (const [id, delivery, least, most] of [
    [1, 1, 3_000, 3_000], [2, 1, 0xffff_ffff, 0xffff_ffff], [3, 1, 1_000, 1_250], [4, 3, 100_000, 125_000],
    [5, 65_535, 3_600_000, 4_500_000],
  ]) {
    dispatcher.deliver([id], { delivery });
    const nack = await dispatcher.next(NACK);
    assert.ok(nack.id === id && nack.delay >= least && nack.delay <= most, JSON.stringify(nack));
  }
});
