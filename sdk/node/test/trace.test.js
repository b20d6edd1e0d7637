/** The trace context of a payload. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { NACK } from '../src/frames.js';
import { Delivery } from '../src/index.js';
import { started } from './support/consumer.js';
import { Dispatcher } from './support/dispatcher.js';

const PARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
const LATER = `42${PARENT.slice(2)}`;

/** @param {unknown} value */
const traced = (value) => JSON.stringify({ traceparent: value });

test('a valid member of an object is the trace context', () => {
  for (const parent of [PARENT, LATER, `${LATER}-n3w`, `${LATER}-${'x'.repeat(72)}`]) {
    assert.equal(new Delivery(traced(parent)).traceparent, parent);
  }
  for (const payload of [
    ` {"a":[1,{"traceparent":5}],"traceparent":"x","traceparent":"${PARENT}"} `,
    `{"trace\\u0070arent":"\\u0030${PARENT.slice(1)}"}`,
    `{"n":${'9'.repeat(10_000)},"e":1e999,"traceparent":"${PARENT}"}`,
    `{"filling":"${'x'.repeat(10 << 20)}","traceparent":"${PARENT}"}`,
  ]) {
    assert.equal(new Delivery(payload).traceparent, PARENT);
  }
});

test('other payloads have none', () => {
  const payloads = [
    '', 'no JSON', 'null', '17', '{}', '['.repeat(100_000), JSON.stringify(PARENT),
    JSON.stringify([{ traceparent: PARENT }]), JSON.stringify({ a: { traceparent: PARENT } }),
    traced(PARENT).slice(0, -1), `${traced(PARENT)} x`, `\ufeff${traced(PARENT)}`,
    `${traced(PARENT).slice(0, -1)},"a":NaN}`, `${traced(PARENT).slice(0, -1)},"traceparent":null}`,
  ];
  const values = [
    null, 5, [PARENT], '', PARENT.slice(1), `${PARENT}0`, `${PARENT}-`, `${PARENT}\n`, ` ${PARENT}`,
    PARENT.toUpperCase(), `ff${PARENT.slice(2)}`, PARENT.replace('0af7651916cd43dd8448eb211c80319c', '0'.repeat(32)),
    PARENT.replace('b7ad6b7169203331', '0'.repeat(16)), '000-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    `${LATER}x`, `${LATER}-A`, `${LATER}-a\r\nX: 1`, `${LATER}-${'x'.repeat(73)}`, `\u0661${PARENT.slice(1)}`,
    'x'.repeat(10 << 20),
  ];
  for (const payload of [...payloads, ...values.map(traced), Uint8Array.of(0xff)]) {
    assert.equal(new Delivery(payload).traceparent, undefined, String(payload).slice(0, 200));
  }
});

test('the log of failures has the trace context only if asked', async (t) => {
  for (const trace of [true, false]) {
    const lines = [];
    const logger = { error() {}, warn: (line) => lines.push(line) };
    const seen = [];
    const consumer = await started(t, (delivery) => {
      seen.push(delivery.traceparent);
      throw new Error('no luck');
    }, { trace, logger });
    const dispatcher = await Dispatcher.leading(consumer);
    dispatcher.deliver([1], { body: traced(PARENT) });
    assert.equal((await dispatcher.next(NACK)).reason, 'no luck');
    dispatcher.deliver([2], { body: 'no JSON' });
    await dispatcher.next(NACK);
    assert.deepEqual(seen, [PARENT, undefined]);
    const failures = lines.filter((line) => line.startsWith('event=handler-failed'));
    const shown = trace ? ` traceparent=${PARENT}` : '';
    assert.ok(failures[0].startsWith(`event=handler-failed id=0000000000000001 delivery=1${shown} reason=`));
    assert.ok(failures[1].startsWith('event=handler-failed id=0000000000000002 delivery=1 reason='));
  }
});
