/** Several lanes on one consumer: section 5.11 of PROTOCOL.md. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DRAIN, HELD, PROCESS, READY } from '../src/frames.js';
import { Delivery } from '../src/index.js';
import { Lanes, MAX_LANES, laneNumber } from '../src/link/lanes.js';
import { RESULT_KIND } from '../src/outcome.js';
import { Turns } from '../src/turns.js';
import { started } from './support/consumer.js';
import { Dispatcher, gate, soon } from './support/dispatcher.js';

const GROUP = '{orders}';
const nameOf = (lane) => (lane === 0 ? GROUP : `{orders/${lane}}`);

/** A dispatcher that leads a lane. */
async function leading(consumer, lane, epoch = 1n, confirms = true) {
  const dispatcher = await Dispatcher.connect(consumer, confirms ? ['oncecast.1', 'oncecast.2'] : []);
  dispatcher.lead(epoch, nameOf(lane), confirms ? {} : undefined);
  await dispatcher.next(READY);
  dispatcher.held = (await dispatcher.next(HELD)).ids;
  return dispatcher;
}

const refusal = async (consumer, group, epoch = 1n) => {
  const dispatcher = await Dispatcher.connect(consumer);
  dispatcher.lead(epoch, group);
  return dispatcher.error();
};

const ids = (count) => Array.from({ length: count }, (_, i) => i + 1);

test('the name of a lane', () => {
  const long = `{${'g'.repeat(251)}`;
  for (const [group, name, number] of [
    ['{orders}', '{orders}', 0], ['{orders}', '{orders/3}', 3], ['shop:{orders}:eu', 'shop:{orders/65535}:eu', 65535],
    ['a}{b}', 'a}{b/3}', 3], ['{{a}}', '{{a/3}}', 3], ['{a}{b}', '{a/3}{b}', 3], ['{a/3}', '{a/3/3}', 3],
    ['{größe}', '{größe/3}', 3], ['orders', 'orders', 0], ['{}', '{}', 0], ['orders', 'orders/1', null],
    ['{}', '{/1}', null], ['{a', '{a/1', null], [`${long}}`, `${long}/99}`, 99], [`${long}}`, `${long}/100}`, null],
  ]) {
    assert.equal(laneNumber(group, name), number, `${group} ${name}`);
  }
  for (const wrong of ['', 'orders', '{orders/}', '{orders/0}', '{orders/01}', '{orders/+1}', '{orders/-1}',
    '{orders/ 1}', '{orders/1 }', '{orders/65536}', '{orders/1/2}', '{orders/1}x', 'x{orders/1}', '{orders//1}',
    '{orders/\u0661}', '{orders/1}\n', '{orders/1\n}', '{other/1}', '{orders}/1', '{orders/1e1}']) {
    assert.equal(laneNumber(GROUP, wrong), null, wrong);
  }
});

test('lanes take turns', () => {
  const turns = new Turns();
  const put = (lane, count) => ids(count).forEach((id) => turns.push(new Delivery('', { id, lane })));
  const taken = (count) => ids(count).map(() => turns.next().lane);
  put(0, 50);
  put(1, 3);
  assert.deepEqual(taken(4), [0, 1, 0, 1]);
  put(2, 2);
  assert.deepEqual(taken(7), [0, 1, 2, 0, 2, 0, 0]);
  put(1, 2);
  turns.pause(0, true);
  assert.deepEqual([...taken(2), turns.next(), turns.length], [1, 1, undefined, 44]);
  turns.pause(0, false);
  assert.equal(turns.next().id, 7);
  assert.deepEqual([turns.takeAll().length, turns.length, turns.next()], [43, 0, undefined]);
});

test('a delivery knows its lane', () => {
  assert.deepEqual([new Delivery('', { id: 0x2f }).key, new Delivery('').lane], ['000000000000002f', 0]);
  assert.equal(new Delivery('', { id: 0x2f, lane: 12 }).key, '12/000000000000002f');
});

for (const confirms of [false, true]) {
  test(`${confirms ? 'oncecast.2' : 'version 1'}: two lanes with the same ids`, async (t) => {
    const consumer = await started(t, ({ key }) => ({ key }), { group: GROUP, prefetch: 100 });
    for (const lane of [0, 5]) {
      const leader = await leading(consumer, lane, BigInt(7 + lane), confirms);
      assert.deepEqual(leader.held, []);
      leader.deliver(ids(40));
      const results = await leader.results(40);
      const prefix = lane === 0 ? '' : `${lane}/`;
      ids(40).forEach((id) => assert.equal(results.get(id).key, `${prefix}${id.toString(16).padStart(16, '0')}`));
    }
  });
}

test('a lane with much to do leaves the others their share', async (t) => {
  const order = [];
  const { promise: opened, open } = gate();
  const consumer = await started(t, async ({ lane }) => {
    order.push(lane);
    await opened;
  }, { group: GROUP, prefetch: 1_000, concurrency: 1 });
  const leaders = [];
  for (let lane = 0; lane < 6; lane++) {
    leaders.push(await leading(consumer, lane));
    leaders[lane].deliver(ids(lane === 0 ? 400 : 50));
  }
  while (consumer.held < 650) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  open();
  await Promise.all(leaders.map((leader, lane) => leader.results(lane === 0 ? 400 : 50)));
  // The first began before the other lanes had messages.
  const first = order.slice(1, 301);
  leaders.forEach((_, lane) => assert.equal(first.filter((begun) => begun === lane).length, 50, `lane ${lane}`));
});

test('a change of leader in one lane leaves the others alone', async (t) => {
  const { promise: opened, open } = gate();
  const consumer = await started(t, async ({ lane, key }) => {
    if (lane === 3) {
      await opened;
    }
    return { key };
  }, { group: GROUP, prefetch: 100, concurrency: 10 });
  const zero = await leading(consumer, 0, 5n);
  const old = await leading(consumer, 3, 5n);
  old.deliver([1, 2]);
  while (consumer.held < 2) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const later = await leading(consumer, 3, 9n);
  assert.deepEqual(later.held.sort(), [1, 2]);
  assert.equal(await old.error(), 6);
  assert.equal(await refusal(consumer, nameOf(3), 5n), 6);
  zero.deliver([1]);
  assert.equal((await zero.results(1)).get(1).key, '0000000000000001');
  later.socket.terminate();
  open();
  const other = await leading(consumer, 0, 6n);
  assert.ok(!other.held.includes(2), 'what is kept for one lane is not listed in another');
  const again = await leading(consumer, 3, 10n);
  assert.deepEqual(again.held.sort(), [1, 2]);
  assert.deepEqual([...(await again.results(2)).keys()].sort(), [1, 2]);
});

test('a lane that is removed while it is paused is unpaused', () => {
  const paused = new Map();
  const lanes = new Lanes({ group: GROUP, consumerId: 'c', prefetch: 100 }, {
    deliver() {}, activated() {}, pause: (lane, isPaused) => paused.set(lane, isPaused), now: () => 0,
  });
  const link = () => ({
    confirms: false, epoch: null, places: 0, bytes: 0, put() {}, refuse() {}, buffered: () => 0,
  });
  for (let lane = 2; lane < MAX_LANES; lane++) {
    lanes.lead(link(), 1n, nameOf(lane));
  }
  const first = link();
  const desk = lanes.lead(first, 1n, nameOf(1));
  desk.accept(first, [{ command: PROCESS, id: 1, delivery: 1, body: Buffer.alloc(1) }]);
  const result = Buffer.alloc(1_048_576);
  result.writeBigUInt64BE(1n);
  desk.take(RESULT_KIND, result);
  desk.answer();
  assert.deepEqual([...paused], [[1, true]]);
  desk.leave(first);
  // The result is sent again, and forgotten then.
  const second = link();
  lanes.lead(second, 2n, nameOf(1));
  desk.leave(second);
  assert.ok(desk.isIdle() && lanes.count === MAX_LANES);
  lanes.lead(link(), 1n, nameOf(9_999));
  assert.deepEqual([lanes.count, ...paused], [MAX_LANES, [1, false]]);
});

test('other groups are refused', async (t) => {
  const consumer = await started(t, () => {}, { group: GROUP });
  for (const other of ['orders', '{orders/01}', '{others}', '{orders/70000}']) {
    assert.equal(await refusal(consumer, other), 7);
  }
});

test('a stop finishes what is held of all lanes', async (t) => {
  const { promise: opened, open } = gate();
  const consumer = await started(t, () => opened, { group: GROUP, concurrency: 3, drainTimeoutMs: 9_000 });
  const leaders = [];
  for (let lane = 0; lane < 3; lane++) {
    leaders.push(await leading(consumer, lane));
    leaders[lane].deliver([1]);
  }
  while (consumer.held < 3) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const stopped = consumer.stop();
  for (const leader of leaders) {
    await leader.next(DRAIN);
  }
  assert.equal(await refusal(consumer, nameOf(4)), 9);
  open();
  for (const leader of leaders) {
    await leader.results(1);
    leader.recorded([1]);
  }
  await soon('the end', stopped);
});
