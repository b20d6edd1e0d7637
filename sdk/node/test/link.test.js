/** Each rule of PROTOCOL.md that binds a consumer without Redis, against a scripted dispatcher. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { CREDIT, DRAIN, ERROR, HELD, HELLO, LEAD, NACK, PROGRESS, READY, RECORDED, RESULTS, encode } from '../src/frames.js';
import { Consumer, Reject, Retry } from '../src/index.js';
import { Dispatcher, gate, soon } from './support/dispatcher.js';

const QUIET = { error() {}, warn() {} };

/** A consumer that is stopped at the end of the test. */
async function started(t, handler, options = {}) {
  const consumer = new Consumer(handler, { listen: '127.0.0.1:0', logger: QUIET, drainTimeoutMs: 100, ...options });
  await consumer.start();
  t.after(() => consumer.stop());
  return consumer;
}

async function becomes(check) {
  const deadline = performance.now() + 10_000;
  while (!check()) {
    assert.ok(performance.now() < deadline, `not in time: ${check}`);
    await sleep(5);
  }
}

const echo = (delivery) => ({ body: delivery.text() });

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
    // The leader has not got the first result.
    dispatcher.deliver([1], { delivery: 3 });
    assert.deepEqual([...(await dispatcher.results(1)).keys()], [1]);
    assert.equal(calls, 2);
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

test('the subprotocol is oncecast.2 if offered, else oncecast.1, else none', async (t) => {
  const consumer = await started(t, echo);
  for (const [offered, selected] of [
    [['oncecast.1', 'oncecast.2'], 'oncecast.2'], [['oncecast.1'], 'oncecast.1'], [[], ''],
  ]) {
    const dispatcher = await Dispatcher.connect(consumer, offered);
    assert.equal(dispatcher.socket.protocol, selected);
    assert.equal(dispatcher.socket.extensions, '');
    await dispatcher.drop();
  }
  const { port } = consumer.address;
  const other = new WebSocket(`ws://127.0.0.1:${port}/`, ['mqtt']);
  const [error] = await soon('a refusal by the client', once(other, 'error'));
  assert.match(error.message, /no subprotocol/);
  // Compression may be offered, and is not selected.
  const offering = await Dispatcher.connect(consumer, [], { perMessageDeflate: true });
  assert.equal(offering.socket.extensions, '');
});

/** The status of an HTTP request. */
function status(consumer, path, headers, method = 'GET') {
  return soon(`an answer for ${path}`, new Promise((resolve, reject) => {
    const asked = request({ port: consumer.address.port, host: '127.0.0.1', path, headers, method });
    asked.on('response', (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    asked.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.statusCode);
    });
    asked.on('error', reject);
    asked.end();
  }));
}

test('what is no dispatcher is refused', async (t) => {
  const consumer = await started(t, echo);
  const handshake = {
    Connection: 'keep-alive, Upgrade', Upgrade: 'WebSocket', 'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
  };
  assert.equal(await status(consumer, '/', handshake), 101);
  assert.equal(await status(consumer, '/?a', handshake), 101);
  for (const origin of ['https://evil.example', 'null', '']) {
    assert.equal(await status(consumer, '/', { ...handshake, Origin: origin }), 403, origin);
  }
  for (const path of ['/x', '//', '/%2f']) {
    assert.equal(await status(consumer, path, handshake), 404, path);
  }
  assert.equal(await status(consumer, '/', {}), 426);
  assert.equal(await status(consumer, '/metrics', {}), 426);
  assert.equal(await status(consumer, '/', handshake, 'POST'), 426);
  assert.equal(await status(consumer, '/', { ...handshake, 'Sec-WebSocket-Version': '8' }), 426);
  assert.equal(await status(consumer, '/', { ...handshake, Upgrade: 'h2c' }), 426);
  assert.equal(await status(consumer, '/', { ...handshake, 'Sec-WebSocket-Key': 'short' }), 400);
  const socket = connect(consumer.address.port, '127.0.0.1');
  socket.end('\x16\x03\x01 no HTTP\r\n\r\n');
  const [answer] = await soon('an answer', once(socket, 'data'));
  assert.match(answer.toString(), /^HTTP\/1.1 400 /);
});

test('epochs: another group, an older one, the same and a newer one', async (t) => {
  const consumer = await started(t, echo);
  const stranger = await Dispatcher.connect(consumer);
  stranger.lead(1n, 'others');
  assert.equal(await stranger.error(), 7);
  const first = await Dispatcher.leading(consumer, 2n ** 60n);
  const old = await Dispatcher.connect(consumer);
  old.lead(2n ** 60n - 1n);
  assert.equal(await old.error(), 6);
  const same = await Dispatcher.leading(consumer, 2n ** 60n);
  assert.equal(await first.error(), 10);
  const newer = await Dispatcher.leading(consumer, 2n ** 60n + 1n);
  assert.equal(await same.error(), 6);
  newer.deliver([1], { body: 'last' });
  assert.deepEqual((await newer.results(1)).get(1), { body: 'last' });
});

test('errors of the dispatcher are answered with their code, and nothing of such a message is obeyed', async (t) => {
  let calls = 0;
  const consumer = await started(t, () => {
    calls += 1;
  });
  const process = (id) => encode({ command: 0, id, delivery: 1, body: Buffer.from('x') });
  const lead = encode({ command: LEAD, epoch: 9n, group: 'messages' });
  const hello = encode({ command: HELLO, hello: {} });
  const recorded = encode({ command: RECORDED, ids: [] });
  const before = [
    ['PROCESS before LEAD', process(1), 5, false],
    ['HELLO before LEAD', hello, 5, true],
    ['RECORDED before LEAD', recorded, 5, true],
    ['a message over 65,536 bytes before LEAD', Buffer.concat([lead, Buffer.alloc(65_536)]), 3, false],
    ['another version', Buffer.of(2, 3, 0, 0, 0, 0), 1, false],
  ];
  const after = [
    ['a second LEAD', lead, 5, false],
    ['a frame in the wrong direction', encode({ command: DRAIN }), 5, false],
    ['a command that does not exist, behind a message', Buffer.concat([process(1), Buffer.of(1, 99, 0, 0, 0, 0)]), 2],
    ['a payload over the limit', Buffer.from('010300ffffff', 'hex'), 3, false],
    ['a frame cut short', process(1).subarray(0, -1), 4, false],
    ['HELLO in version 1', hello, 5, false],
    ['RECORDED in version 1', recorded, 5, false],
    ['HELLO in a message of its own', hello, 5, true],
    ['RESULTS', Buffer.from('010b0000000a00000000000000010000', 'hex'), 5, true],
    ['CREDIT', encode({ command: CREDIT, prefetch: 1 }), 5, true],
  ];
  for (const [what, bytes, code, confirms] of before) {
    const dispatcher = await Dispatcher.connect(consumer, confirms ? ['oncecast.2'] : []);
    dispatcher.raw(bytes);
    assert.equal(await dispatcher.error(), code, what);
  }
  for (const [what, bytes, code, confirms] of after) {
    const dispatcher = await Dispatcher.leading(consumer, 9n, { confirms });
    dispatcher.raw(bytes);
    assert.equal(await dispatcher.error(), code, what);
  }
  const texting = await Dispatcher.leading(consumer, 9n);
  texting.raw('text', { binary: false });
  assert.equal(await texting.error(), 4);
  const large = await Dispatcher.leading(consumer, 9n);
  large.raw(Buffer.alloc(12_582_919, 1));
  assert.equal(await large.error(), 3);
  const twice = await Dispatcher.connect(consumer, ['oncecast.2']);
  twice.raw(Buffer.concat([lead, hello, hello]));
  await twice.next(READY);
  await twice.next(HELD);
  assert.equal(await twice.error(), 5);
  assert.equal(calls, 0);
});

test('an ERROR of the dispatcher, unknown codes included, ends the connection', async (t) => {
  const consumer = await started(t, echo);
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.send({ command: ERROR, code: 4711, text: 'for people' });
  assert.equal(await soon('the end', dispatcher.closed), 1001);
});

test('unmasked frames and compressed ones are refused', async (t) => {
  const consumer = await started(t, echo);
  for (const frame of [Buffer.of(0x82, 0), Buffer.of(0xc2, 0x80, 1, 2, 3, 4)]) {
    const dispatcher = await Dispatcher.connect(consumer);
    dispatcher.socket._socket.write(frame);
    assert.equal(await soon('the end', dispatcher.closed), 1002);
  }
});

test('fragmented messages and an empty one are accepted', async (t) => {
  const consumer = await started(t, echo);
  const dispatcher = await Dispatcher.leading(consumer);
  dispatcher.raw(Buffer.alloc(0));
  const bytes = encode({ command: 0, id: 1, delivery: 1, body: Buffer.from('in parts') });
  dispatcher.raw(bytes.subarray(0, 3), { fin: false });
  dispatcher.raw(bytes.subarray(3, 9), { fin: false });
  dispatcher.raw(bytes.subarray(9));
  assert.deepEqual((await dispatcher.results(1)).get(1), { body: 'in parts' });
});

test('the largest message comes through, and as a result', async (t) => {
  const consumer = await started(t, ({ payload, channel }) => ({ payload, length: channel.length }));
  const dispatcher = await Dispatcher.leading(consumer);
  const body = Buffer.alloc(8_388_608, 'b');
  dispatcher.deliver([1], { body, channel: 'c'.repeat(4096) });
  const result = (await dispatcher.results(1)).get(1);
  assert.equal(result.length, '4096');
  assert.ok(result.payload === body.toString());
});

test('without a LEAD a connection is closed after 5 s, without a handshake too', async (t) => {
  const consumer = await started(t, echo);
  const mute = connect(consumer.address.port, '127.0.0.1');
  mute.on('error', () => {});
  const before = performance.now();
  const dispatcher = await Dispatcher.connect(consumer);
  const ended = once(mute, 'close');
  assert.equal(await dispatcher.error(), 5);
  await soon('the end', ended);
  const took = performance.now() - before;
  assert.ok(took > 4_500 && took < 7_000, `${took} ms`);
});

test('of more than 64 connections one that does not lead is closed', async (t) => {
  const consumer = await started(t, echo);
  const dispatcher = await Dispatcher.leading(consumer);
  const others = [];
  let ended = 0;
  for (let i = 0; i < 100; i++) {
    const socket = connect(consumer.address.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.on('close', () => {
      ended += 1;
    });
    await once(socket, 'connect');
    others.push(socket);
  }
  const later = await Dispatcher.connect(consumer);
  dispatcher.deliver([1]);
  await dispatcher.results(1);
  assert.equal(later.isClosed, false);
  await becomes(() => ended >= 38);
  assert.equal(ended, 38);
  others.forEach((socket) => socket.destroy());
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

test('an address that is in use is an error of start and of run', async (t) => {
  const consumer = await started(t, echo);
  const listen = `127.0.0.1:${consumer.address.port}`;
  await assert.rejects(new Consumer(echo, { listen, logger: QUIET }).start(), /EADDRINUSE/);
  await assert.rejects(new Consumer(echo, { listen, logger: QUIET }).run(), /EADDRINUSE/);
  await assert.rejects(new Consumer(echo, { logger: QUIET }).stop(), /not started/);
});
