/** Epochs, and errors of the dispatcher: sections 2, 5.1 and 5.8 of PROTOCOL.md. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import test from 'node:test';
import { encode } from '../src/encode.js';
import { CREDIT, DRAIN, ERROR, HELD, HELLO, LEAD, READY, RECORDED } from '../src/frames.js';
import { echo, started } from './support/consumer.js';
import { Dispatcher, soon } from './support/dispatcher.js';

test('epochs: another group, an older one, the same and a newer one', async (t) => {
  const consumer = await started(t, echo);
  const now = BigInt(Date.now());
  const stranger = await Dispatcher.connect(consumer);
  stranger.lead(1n, 'others');
  assert.equal(await stranger.error(), 7);
  const first = await Dispatcher.leading(consumer, now);
  const old = await Dispatcher.connect(consumer);
  old.lead(now - 1n);
  assert.equal(await old.error(), 6);
  const same = await Dispatcher.leading(consumer, now);
  assert.equal(await first.error(), 10);
  const newer = await Dispatcher.leading(consumer, now + 1n);
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
