/** What handlers may do: block, take too long, and what the link reports meanwhile (section 5.4 of PROTOCOL.md). */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CREDIT, DRAIN, NACK, PROGRESS, RESULTS } from '../src/frames.js';
import { started } from './support/consumer.js';
import { Dispatcher, gate, soon } from './support/dispatcher.js';

test('oncecast.2: PROGRESS comes as often as the link timeout asks for', async (t) => {
  const { promise, open } = gate();
  const consumer = await started(t, () => promise);
  const dispatcher = await Dispatcher.leading(consumer, 5n, { hello: { link_timeout_ms: 150, unknown: [1] } });
  dispatcher.deliver([1]);
  const before = performance.now();
  for (let i = 0; i < 5; i++) {
    await dispatcher.next(PROGRESS);
  }
  assert.ok(performance.now() - before < 1_000);
  open();
});

test('while a handler blocks, the link lives, and new messages go elsewhere', async (t) => {
  const consumer = await started(t, ({ id }) => {
    if (id === 2) {
      const end = performance.now() + 3_500;
      while (performance.now() < end);
    }
    return { id };
  });
  // This test's own thread is the one that is blocked: what arrived meanwhile is read afterwards.
  const dispatcher = await Dispatcher.leading(consumer, 5n, { hello: { link_timeout_ms: 300 } });
  dispatcher.deliver([1, 2, 3]);
  const frames = await dispatcher.until(({ command, prefetch }) => command === CREDIT && prefetch > 0);
  const commands = frames.map(({ command }) => command);
  const pause = frames.findIndex(({ command, prefetch }) => command === CREDIT && prefetch === 0);
  assert.ok(pause >= 0, `${commands}`);
  assert.ok(commands.filter((command) => command === PROGRESS).length > 15, `${commands}`);
  const results = frames.filter(({ command }) => command === RESULTS).flatMap((frame) => frame.results);
  dispatcher.recorded([1]);
  while (results.length < 3) {
    results.push(...(await dispatcher.batch()));
  }
  assert.deepEqual(results.map(({ id }) => id), [1, 2, 3]);
});

test('a field named then is a field', async (t) => {
  const consumer = await started(t, () => ({ then: 'x' }));
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.deliver([1]);
  assert.deepEqual((await dispatcher.results(1)).get(1), { then: 'x' });
});

test('no more than `concurrency` handlers run, in the order of the messages, while more keep coming', async (t) => {
  let running = 0;
  let most = 0;
  const order = [];
  const consumer = await started(t, async ({ id }) => {
    running += 1;
    most = Math.max(most, running);
    order.push(id);
    await sleep(0);
    running -= 1;
  }, { concurrency: 3, prefetch: 100 });
  const dispatcher = await Dispatcher.leading(consumer);
  const ids = Array.from({ length: 5_000 }, (_, i) => i + 1);
  let sent = 100;
  dispatcher.deliver(ids.slice(0, sent));
  for (let done = 0; done < ids.length;) {
    const batch = (await dispatcher.batch()).map(({ id }) => id);
    done += batch.length;
    dispatcher.recorded(batch);
    dispatcher.deliver(ids.slice(sent, sent + batch.length));
    sent += batch.length;
  }
  assert.equal(most, 3);
  assert.deepEqual(order, ids);
});

test('a handler that takes too long has failed, and its answer is dropped', async (t) => {
  const { promise, open } = gate();
  const consumer = await started(t, () => promise, { handlerTimeoutMs: 50, concurrency: 1 });
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.deliver([1]);
  assert.match((await dispatcher.next(NACK)).reason, /longer than 50 ms/);
  open({ late: true });
  assert.ok(await dispatcher.isSilent());
  dispatcher.deliver([1], { delivery: 2 });
  assert.deepEqual((await dispatcher.results(1)).get(1), { late: 'true' });
});

test('a consumer stops at the end of its time, whatever its handlers do', async (t) => {
  const consumer = await started(t, () => new Promise(() => {}), { drainTimeoutMs: 200 });
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.deliver([1]);
  await sleep(50);
  const before = performance.now();
  await consumer.stop();
  assert.ok(performance.now() - before < 2_000);
  await dispatcher.next(DRAIN);
  assert.equal(await soon('the end', dispatcher.closed), 1001);
});

test('whatever a handler returns or throws, or the logger does, the message is answered once', async (t) => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const outcomes = {
    1: () => ({ then() { throw new Error('no promise'); } }),
    2: () => ({ then(done) { done({ a: 1 }); done({ a: 2 }); } }),
    3: () => { throw proxy; },
    4: () => Promise.reject(proxy),
  };
  const fails = () => {
    throw new Error('the logger');
  };
  const logger = { error: fails, warn: fails };
  const handler = (delivery) => outcomes[delivery.id]();
  const consumer = await started(t, handler, { concurrency: 1, logger });
  const dispatcher = await Dispatcher.leading(consumer);
  for (const id of [1, 3, 4]) {
    dispatcher.deliver([id]);
    assert.equal((await dispatcher.next(NACK)).id, id);
    assert.equal(consumer.held, 0);
  }
  dispatcher.deliver([2]);
  assert.deepEqual([...(await dispatcher.results(1)).keys()], [2]);
});
