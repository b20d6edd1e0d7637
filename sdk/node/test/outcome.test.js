import assert from 'node:assert/strict';
import test from 'node:test';
import { decode } from '../src/decode.js';
import { encode, writeHeader } from '../src/encode.js';
import { RESULT, NACK } from '../src/frames.js';
import { Delivery, Reject, Retry } from '../src/index.js';
import { Answers, HEAD_BYTES, failure } from '../src/outcome.js';

/** The answers of a block as frames. */
function frames(answers) {
  const bytes = Buffer.from(answers.take());
  const found = [];
  let at = 0;
  while (at < bytes.length) {
    const length = bytes.readUInt32LE(at + 1);
    const frame = Buffer.alloc(6 + length);
    writeHeader(frame, bytes[at] === 0 ? RESULT : NACK, length);
    bytes.copy(frame, 6, at + HEAD_BYTES, at + HEAD_BYTES + length);
    found.push(...decode(frame));
    at += HEAD_BYTES + length;
  }
  return found;
}

function fieldsOf(outcome) {
  const answers = new Answers();
  answers.done(7, outcome);
  const [{ id, fields }] = frames(answers);
  assert.equal(id, 7);
  return fields.map(({ name, value }) => [name.toString('latin1'), value.toString('latin1')]);
}

test('an outcome becomes fields, in order', () => {
  assert.deepEqual(fieldsOf(undefined), []);
  assert.deepEqual(fieldsOf(null), []);
  assert.deepEqual(fieldsOf({}), []);
  const outcome = {
    text: 'yes', empty: '', bytes: Buffer.of(0, 255), array: Uint8Array.of(65), number: 1.5, big: 10n, truth: false,
    date: new Date(0), left: undefined, none: null, list: [1, 'a'], nested: { a: { b: 1 } },
  };
  assert.deepEqual(fieldsOf(outcome), [
    ['text', 'yes'], ['empty', ''], ['bytes', '\0\xff'], ['array', 'A'], ['number', '1.5'], ['big', '10'],
    ['truth', 'false'], ['date', '1970-01-01T00:00:00.000Z'], ['none', 'null'], ['list', '[1,"a"]'],
    ['nested', '{"a":{"b":1}}'],
  ]);
  assert.deepEqual(fieldsOf(new Map([[Buffer.of(255), 'x'], ['y', 2]])), [['\xff', 'x'], ['y', '2']]);
  class Order {
    total = 7;
  }
  assert.deepEqual(fieldsOf(new Order()), [['total', '7']]);
  assert.deepEqual(fieldsOf(Object.assign(Object.create(null), { a: 1 })), [['a', '1']]);
  const words = { words: Uint16Array.of(0x4142), buffer: Uint8Array.of(66).buffer };
  assert.deepEqual(fieldsOf(words), [['words', 'BA'], ['buffer', 'B']]);
  const long = 'ä'.repeat(100_000);
  assert.equal(fieldsOf({ long })[0][1].length, 200_000);
});

test('what can be no outcome is refused and leaves nothing behind', () => {
  const answers = new Answers();
  const many = Object.fromEntries(Array.from({ length: 3901 }, (_, i) => [`f${i}`, '']));
  const cycle = {};
  cycle.cycle = cycle;
  const cases = [
    ['text', TypeError], [7, TypeError], [true, TypeError], [[1], TypeError], [Buffer.of(1), TypeError],
    [new Set([1]), TypeError], [new Date(0), TypeError], [new Error('x'), TypeError], [new ArrayBuffer(1), TypeError],
    [{ f: new Map() }, TypeError], [{ f: new Set() }, TypeError],
    [{ f: () => 1 }, TypeError], [{ f: Symbol('s') }, TypeError], [{ f: cycle }, TypeError],
    [many, Reject], [{ f: Buffer.alloc(12_582_912) }, Reject], [{ f: 'x'.repeat(13_000_000) }, Reject],
    [{ ['n'.repeat(65_536)]: 1 }, Reject],
  ];
  for (const [outcome, type] of cases) {
    assert.throws(() => answers.done(1, outcome), type);
    assert.equal(answers.length, 0);
  }
  answers.done(1, { f: Buffer.alloc(12_582_912 - 17) });
  assert.equal(frames(answers)[0].fields[0].value.length, 12_582_895);
});

test('answers of a block stay apart', () => {
  const answers = new Answers();
  for (let id = 1; id <= 3000; id++) {
    if (id % 3 === 0) {
      answers.failed(id, id, Buffer.from(`r${id}`));
    } else {
      answers.done(id, { value: 'v'.repeat(id % 100) });
    }
  }
  const found = frames(answers);
  assert.deepEqual(found.map(({ id }) => id), Array.from({ length: 3000 }, (_, i) => i + 1));
  assert.deepEqual(found[2], { command: NACK, id: 3, delay: 3, reason: 'r3' });
  assert.equal(answers.length, 0);
  assert.equal(encode(found[0]).length, 6 + 10 + 2 + 5 + 4 + 1);
});

test('what a handler throws has a delay, and a reason that is never empty', () => {
  const of = (thrown) => {
    const { delay, reason } = failure(thrown);
    return [delay, reason.toString()];
  };
  const never = 0xffff_ffff;
  assert.deepEqual(of(new Retry('no luck')), [0, 'no luck']);
  assert.deepEqual(of(new Retry('later', { afterMs: 3000 })), [3000, 'later']);
  assert.deepEqual(of(new Retry('now', { afterMs: 0 })), [1, 'now']);
  assert.deepEqual(of(new Retry('late', { afterMs: Infinity })), [never - 1, 'late']);
  assert.deepEqual(of(new Reject('never')), [never, 'never']);
  assert.deepEqual(of(new Error('plain')), [0, 'plain']);
  assert.deepEqual(of(new TypeError('typed')), [0, 'TypeError: typed']);
  assert.deepEqual(of('text'), [0, 'text']);
  assert.deepEqual(of(undefined), [0, 'the handler threw undefined: undefined']);
  const causes = new Error('reading', { cause: new Error('open', { cause: new Error('no file') }) });
  assert.deepEqual(of(causes), [0, 'reading: open: no file']);
  assert.deepEqual(of(new Error('a: b', { cause: new Error('b') })), [0, 'a: b']);
  assert.deepEqual(of(new Retry('busy', { cause: new Error('full') })), [0, 'busy: full']);
  const odd = { toString: () => { throw new Error('no'); } };
  for (const thrown of [new Error(''), new Retry(''), new Reject(''), '', odd, Object.create(null), Symbol('s')]) {
    assert.notEqual(of(thrown)[1], '');
  }
  assert.equal(failure(new Error('€'.repeat(5000))).reason.length, 4095);
  for (const afterMs of [-1, NaN, '5', null]) {
    assert.throws(() => new Retry('x', { afterMs }), TypeError);
  }
});

test('a delivery for a test has what the test sets', () => {
  const delivery = new Delivery('{"a":1}', { id: 255, number: 3, channel: 'orders.eu', consumerId: 'c' });
  assert.deepEqual(delivery.json(), { a: 1 });
  assert.equal(delivery.hexId, '00000000000000ff');
  assert.equal(delivery.channelText, 'orders.eu');
  assert.deepEqual([delivery.number, delivery.consumerId], [3, 'c']);
  const bytes = new Delivery(Uint8Array.of(0xff));
  assert.deepEqual([bytes.channel, bytes.channelText, bytes.payload], [null, null, Buffer.of(0xff)]);
  assert.throws(() => bytes.text(), TypeError);
  assert.equal(new Delivery('\ufffd \ufeff').text(), '\ufffd \ufeff');
});
