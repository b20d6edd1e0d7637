/** Messages, HELD, PROGRESS and DRAIN, by each version of the protocol: section 5 of PROTOCOL.md. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DRAIN, NACK, PROGRESS, READY } from '../src/frames.js';
import { Reject, Retry } from '../src/index.js';
import { becomes, started } from './support/consumer.js';
import { Dispatcher, gate, soon } from './support/dispatcher.js';

for (const confirms of [false, true]) {
  const name = confirms ? 'oncecast.2' : 'version 1';

  test(`${name}: messages are handled and results sent`, async (t) => {
    const consumer = await started(t, (delivery) => ({
      id: delivery.hexId, body: delivery.payload, channel: delivery.channelText, number: delivery.number,
      by: delivery.consumerId,
    }), { consumerId: 'c0', prefetch: 77 });
    const dispatcher = await Dispatcher.leading(consumer, 5n, { confirms });
    assert.deepEqual(dispatcher.ready, { command: READY, prefetch: 77, flags: 2, consumer: 'c0' });
    assert.deepEqual(dispatcher.held, []);
    dispatcher.deliver([255], { body: 'hi' });
    dispatcher.deliver([256], { body: '', channel: 'orders.eu', delivery: 3 });
    const results = await dispatcher.results(2);
    const [first, second] = [results.get(255), results.get(256)];
    assert.deepEqual(first, { id: '00000000000000ff', body: 'hi', channel: 'null', number: '1', by: 'c0' });
    assert.deepEqual(second, { id: '0000000000000100', body: '', channel: 'orders.eu', number: '3', by: 'c0' });
    assert.equal(consumer.held, 0);
    assert.equal(consumer.isConnected, true);
  });

  test(`${name}: what a handler throws is a NACK`, async (t) => {
    const thrown = {
      1: () => new Retry('no luck'), 2: () => new Retry('too early', { afterMs: 3000 }), 3: () => new Reject('never'),
      4: () => new RangeError('broken'), 5: () => '',
    };
    const consumer = await started(t, async ({ id }) => {
      throw thrown[id]();
    });
    const dispatcher = await Dispatcher.leading(consumer, 5n, { confirms });
    dispatcher.deliver([1, 2, 3, 4, 5]);
    const nacks = [];
    for (let i = 0; i < 5; i++) {
      const { id, delay, reason } = await dispatcher.next(NACK);
      nacks.push([id, delay, reason]);
    }
    assert.deepEqual(nacks, [
      [1, 0, 'no luck'], [2, 3000, 'too early'], [3, 0xffff_ffff, 'never'], [4, 0, 'RangeError: broken'],
      [5, 0, 'the handler gave no reason'],
    ]);
  });

  test(`${name}: HELD lists what is held, failed and kept, and what was kept is sent again`, async (t) => {
    const gates = { 1: gate(), 2: gate(), 3: gate(), 4: gate() };
    let calls = 0;
    const consumer = await started(t, async ({ id }) => {
      calls += 1;
      await gates[id].promise;
      if (id === 2) {
        throw new Retry('failed');
      }
      return { id };
    });
    const first = await Dispatcher.leading(consumer, 5n, { confirms });
    first.deliver([1, 2, 3, 4]);
    gates[4].open();
    assert.deepEqual([...(await first.results(1)).keys()], [4]);
    await first.drop();
    await becomes(() => !consumer.isConnected);
    gates[1].open();
    gates[2].open();
    await becomes(() => consumer.held === 1);
    const second = await Dispatcher.leading(consumer, 6n, { confirms });
    assert.deepEqual(second.held.sort(), [1, 2, 3, 4]);
    assert.deepEqual(await second.next(NACK), { command: NACK, id: 2, delay: 0, reason: 'failed' });
    assert.deepEqual([...(await second.results(2)).keys()].sort(), [1, 4]);
    gates[3].open();
    assert.deepEqual([...(await second.results(1)).keys()], [3]);
    assert.equal(calls, 4);
  });

  test(`${name}: the same id again is not run twice`, async (t) => {
    const { promise, open } = gate();
    let calls = 0;
    const consumer = await started(t, async () => {
      calls += 1;
      await promise;
      return { calls };
    });
    const dispatcher = await Dispatcher.leading(consumer, 5n, { confirms });
    dispatcher.deliver([1, 1]);
    dispatcher.deliver([1, 2], { delivery: 2 });
    open();
    assert.deepEqual([...(await dispatcher.results(2)).keys()], [1, 2]);
    dispatcher.deliver([1], { delivery: 3 });
    if (confirms) {
      // The result has crossed this delivery.
      assert.ok(await dispatcher.isSilent());
      dispatcher.recorded([1]);
      // The result had no effect.
      dispatcher.deliver([1], { delivery: 4 });
    }
    assert.deepEqual([...(await dispatcher.results(1)).keys()], [1]);
    assert.equal(calls, confirms ? 3 : 2);
  });

  test(`${name}: PROGRESS comes at each ping and each second`, async (t) => {
    const { promise, open } = gate();
    const consumer = await started(t, () => promise);
    const dispatcher = await Dispatcher.leading(consumer, 5n, { confirms });
    dispatcher.deliver([1, 2]);
    await becomes(() => consumer.held === 2);
    const before = performance.now();
    dispatcher.socket.ping();
    assert.deepEqual((await dispatcher.next(PROGRESS)).ids, [1, 2]);
    assert.ok(performance.now() - before < 500);
    await dispatcher.next(PROGRESS, 1_500);
    await dispatcher.next(PROGRESS, 1_500);
    open();
    await dispatcher.results(2);
  });

  test(`${name}: messages beyond the prefetch are refused, all of them`, async (t) => {
    const { promise, open } = gate();
    let calls = 0;
    const consumer = await started(t, async () => {
      calls += 1;
      await promise;
    }, { prefetch: 2 });
    const first = await Dispatcher.leading(consumer, 5n, { confirms });
    first.deliver([1]);
    first.deliver([2, 3]);
    assert.equal(await first.error(), 8);
    // What is held from earlier does not count here: this leader may know that another consumer holds it.
    const second = await Dispatcher.leading(consumer, 6n, { confirms });
    assert.deepEqual(second.held, [1]);
    second.deliver([2, 3]);
    open();
    assert.deepEqual([...(await second.results(3)).keys()].sort(), [1, 2, 3]);
    second.deliver([4, 5]);
    await second.results(2);
    assert.equal(calls, 5);
  });

  test(`${name}: a draining consumer returns what it has not started and finishes the rest`, async (t) => {
    const { promise, open } = gate();
    const consumer = await started(t, async ({ id }) => {
      await promise;
      return { id };
    }, { concurrency: 1, drainTimeoutMs: 7_000 });
    const dispatcher = await Dispatcher.leading(consumer, 5n, { confirms });
    dispatcher.deliver([1, 2]);
    await becomes(() => consumer.held === 2);
    const stopped = consumer.stop();
    await dispatcher.next(DRAIN);
    assert.deepEqual(await dispatcher.next(NACK), { command: NACK, id: 2, delay: 0, reason: '' });
    // Not accepted.
    dispatcher.deliver([3]);
    // A new leader that comes meanwhile is answered.
    const later = await Dispatcher.leading(consumer, 6n, { confirms });
    assert.equal(await dispatcher.error(), 6);
    assert.deepEqual(later.held, [1]);
    await later.next(DRAIN);
    later.socket.ping();
    assert.deepEqual((await later.next(PROGRESS)).ids, [1]);
    open();
    assert.deepEqual([...(await later.results(1)).keys()], [1]);
    if (confirms) {
      await sleep(100);
      assert.equal(later.isClosed, false, 'it waits for the confirmation');
      later.recorded([1]);
    }
    await soon('the stop', stopped, 2_000);
    assert.equal(await later.closed, 1001);
    assert.equal(consumer.isConnected, false);
  });
}
