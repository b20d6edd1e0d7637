/** How long results are kept, and large ones: section 5.6 of PROTOCOL.md. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { started } from './support/consumer.js';
import { Dispatcher } from './support/dispatcher.js';

test('the largest message comes through, and as a result', async (t) => {
  const consumer = await started(t, ({ payload, channel }) => ({ payload, length: channel.length }));
  const dispatcher = await Dispatcher.leading(consumer);
  const body = Buffer.alloc(8_388_608, 'b');
  dispatcher.deliver([1], { body, channel: 'c'.repeat(4096) });
  const result = (await dispatcher.results(1)).get(1);
  assert.equal(result.length, '4096');
  assert.ok(result.payload === body.toString());
});

test('oncecast.2: results are kept until they are confirmed', async (t) => {
  const consumer = await started(t, ({ id }) => ({ id }), { prefetch: 3_000 });
  const ids = Array.from({ length: 2_000 }, (_, i) => i + 1);
  const first = await Dispatcher.leading(consumer, 5n);
  first.deliver(ids);
  assert.equal((await first.results(2_000)).size, 2_000);
  first.recorded([...ids.slice(0, 500), 77_777]);
  first.deliver([5_000]);
  await first.results(1);
  await first.drop();
  const second = await Dispatcher.leading(consumer, 5n);
  assert.deepEqual(second.held, [...ids.slice(500), 5_000]);
  assert.deepEqual([...(await second.results(1_501)).keys()], [...ids.slice(500), 5_000]);
  second.recorded([...ids.slice(500), 5_000]);
  second.socket.ping();
  await once(second.socket, 'pong');
  await second.drop();
  assert.deepEqual((await Dispatcher.leading(consumer, 5n)).held, []);
});

test('version 1: the last 1,000 results are kept, for 10 s', async (t) => {
  const consumer = await started(t, ({ id }) => ({ id }), { prefetch: 3_000 });
  const first = await Dispatcher.leading(consumer, 5n, { confirms: false });
  const ids = Array.from({ length: 1_500 }, (_, i) => i + 1);
  first.deliver(ids);
  await first.results(1_500);
  await first.drop();
  const second = await Dispatcher.leading(consumer, 5n, { confirms: false });
  assert.deepEqual(second.held, ids.slice(500));
  await second.results(1_000);
  await sleep(10_100);
  await second.drop();
  assert.deepEqual((await Dispatcher.leading(consumer, 5n, { confirms: false })).held, []);
});

test('version 1: results are listed and sent again once', async (t) => {
  const consumer = await started(t, ({ id }) => ({ id }), { prefetch: 4 });
  let dispatcher = await Dispatcher.leading(consumer, 5n, { confirms: false });
  for (let id = 1; id <= 600; id += 1) {
    dispatcher.deliver([id]);
    await dispatcher.results(1);
  }
  for (const listed of [502, 0, 0]) {
    await dispatcher.drop();
    dispatcher = await Dispatcher.leading(consumer, 5n, { confirms: false });
    assert.equal(dispatcher.held.length, listed);
    await dispatcher.results(listed);
  }
});

test('an epoch of the far future is refused and forgotten', async (t) => {
  const consumer = await started(t, ({ id }) => ({ id }));
  const now = BigInt(Date.now());
  for (const epoch of [2n ** 64n - 1n, now + 90_000_000n]) {
    await assert.rejects(Dispatcher.leading(consumer, epoch));
  }
  await Dispatcher.leading(consumer, now);
  await Dispatcher.leading(consumer, now + 80_000_000n);
});

test('while the dispatcher does not read, results wait in the consumer and progress is not piled up', async (t) => {
  const value = 'v'.repeat(100_000);
  const consumer = await started(t, () => ({ value }));
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.socket.pause();
  const ids = Array.from({ length: 900 }, (_, i) => i + 1);
  dispatcher.deliver(ids);
  // 90 MB of results are more than may wait, so not every handler is started.
  await sleep(1_500);
  assert.ok(consumer.held > 0, `${consumer.held}`);
  dispatcher.socket.resume();
  const seen = new Set();
  while (seen.size < ids.length) {
    const batch = (await dispatcher.batch()).map(({ id }) => id);
    batch.forEach((id) => seen.add(id));
    dispatcher.recorded(batch);
  }
});
