import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { decode } from '../src/decode.js';
import { cutText, encode } from '../src/encode.js';
import {
  COMMANDS, CREDIT, DELIVER, ERROR, HELD, HELLO, LEAD, MAX_IDS, NACK, PROCESS, PROOF, ProtocolError, RECORDED, RESULT,
  RESULTS,
} from '../src/frames.js';

const protocol = readFileSync(new URL('../../../docs/PROTOCOL.md', import.meta.url), 'utf8');

/**
 * The examples of PROTOCOL.md: the lines that name frames, and their bytes. Without PART, which a dispatcher does not
 * send to a consumer that does not announce it.
 */
function examples() {
  const found = [];
  for (const [, block] of protocol.matchAll(/^```frames\n([^]*?)^```$/gm)) {
    let names = [];
    let bytes = '';
    for (const line of [...block.split('\n'), 'end']) {
      if (line.startsWith('     ')) {
        bytes += line.replace(/\s/g, '');
        continue;
      }
      if (bytes !== '') {
        found.push({ lines: names, bytes: Buffer.from(bytes, 'hex') });
        names = [];
        bytes = '';
      }
      names.push(line);
    }
  }
  return found.filter(({ lines }) => !lines.some((line) => line.includes(' PART ')));
}

/** A decoded frame as PROTOCOL.md writes it. */
function written(frame) {
  const quoted = (value) => JSON.stringify(value.toString());
  const fields = (list) => `[${list.map(({ name, value }) => `${name}=${quoted(value)}`).join(', ')}]`;
  const parts = {
    id: (value) => `id=${value}`,
    delivery: (value) => `delivery=${value}`,
    channel: (value) => `channel=${quoted(value)}`,
    body: (value) => `body=${quoted(value)}`,
    ids: (value) => `ids=[${value.join(', ')}]`,
    delay: (value) => `delay_ms=${value}`,
    reason: (value) => `reason=${quoted(value)}`,
    epoch: (value) => `epoch=${value}`,
    group: (value) => `group=${quoted(value)}`,
    prefetch: (value) => `prefetch=${value}`,
    flags: (value) => `flags=${value}`,
    consumer: (value) => `consumer=${quoted(value)}`,
    fields: (value) => `fields=${fields(value)}`,
    results: (value) => value.map((result) => `[id=${result.id} fields=${fields(result.fields)}]`).join(' '),
    hello: (value) => JSON.stringify(value),
    proof: (value) => value.toString('hex'),
    code: (value) => `code=${value}`,
    text: (value) => `text=${quoted(value)}`,
  };
  const { command, ...rest } = frame;
  return [COMMANDS[command].name, ...Object.entries(rest).map(([key, value]) => parts[key](value))].join(' ');
}

test('the examples of PROTOCOL.md are decoded to what they say and encoded to the same bytes', () => {
  const all = examples();
  const seen = new Set();
  for (const { lines, bytes } of all) {
    const frames = decode(bytes);
    assert.deepEqual(Buffer.concat(frames.map(encode)), bytes, lines.join('; '));
    const names = lines.map((line) => line.split(' ')[1]);
    assert.deepEqual(frames.map(({ command }) => COMMANDS[command].name), names);
    for (const [i, frame] of frames.entries()) {
      seen.add(frame.command);
      assert.equal(written(frame), lines[i].replace(/^\S+ /, ''));
    }
  }
  const last = protocol.includes('oncecast.2') ? PROOF : DELIVER;
  for (let command = PROCESS; command <= last; command++) {
    assert.ok(seen.has(command), `no example of ${COMMANDS[command].name}`);
  }
});

const text = Buffer.from;
const ZEROS = Buffer.alloc(10);
const FIELDS = [{ name: text('a'), value: text('1') }, { name: text(''), value: text('') }];
const NEW_FRAMES = [
  { command: RESULTS, results: [{ id: 1, fields: FIELDS }, { id: 2 ** 53 - 1, fields: [] }] },
  { command: HELLO, hello: { version: '0.1.0', link_timeout_ms: 3000, max_deliveries: 8, lane: '' } },
  { command: RECORDED, ids: [1, 2] },
  { command: CREDIT, prefetch: 0 },
  { command: PROOF, proof: Buffer.alloc(32, 7) },
];

test('the frames of oncecast.2 keep what they hold', () => {
  assert.deepEqual(decode(Buffer.concat(NEW_FRAMES.map(encode))), NEW_FRAMES);
  assert.equal(encode(NEW_FRAMES[3]).toString('hex'), '010e0000000400000000');
});

function raw(command, payload) {
  const header = Buffer.of(1, command, 0, 0, 0, 0);
  header.writeUInt32BE(payload.length, 2);
  return Buffer.concat([header, payload]);
}

function codeOf(bytes) {
  try {
    decode(bytes);
  } catch (error) {
    assert.ok(error instanceof ProtocolError, String(error.stack));
    return error.code;
  }
  return 0;
}

test('what is no frame is refused with the code for it', () => {
  const lead = encode({ command: LEAD, epoch: 1n, group: 'g' });
  const cases = [
    ['another version', Buffer.concat([Buffer.of(2), lead.subarray(1)]), 1],
    ['another version, cut short', Buffer.of(0), 1],
    ['no such command', raw(16, Buffer.alloc(0)), 2],
    ['a header cut short', lead.subarray(0, 5), 4],
    ['a payload cut short', lead.subarray(0, -1), 4],
    ['a byte more', Buffer.concat([lead, Buffer.of(1)]), 4],
    ['a group over the limit', raw(LEAD, Buffer.alloc(8 + 4097)), 3],
    ['a group that is not UTF-8', raw(LEAD, Buffer.alloc(9, 0xff)), 4],
    ['a LEAD without an epoch', raw(LEAD, Buffer.alloc(7)), 4],
    ['ids and a byte', raw(HELD, Buffer.alloc(9)), 4],
    ['too many ids', raw(HELD, Buffer.alloc(8 * MAX_IDS + 8)), 3],
    ['an id of 2^53', raw(HELD, text('0020000000000000', 'hex')), 4],
    ['a channel without a name', raw(DELIVER, Buffer.alloc(12)), 4],
    ['a channel longer than the payload', raw(DELIVER, text('0000000000000001000100ff', 'hex')), 4],
    ['a channel over the limit', raw(DELIVER, Buffer.concat([ZEROS, text('1001', 'hex'), Buffer.alloc(5000)])), 4],
    ['fields that are not there', raw(RESULT, Buffer.concat([Buffer.alloc(8), text('ffff', 'hex')])), 4],
    ['a value longer than the payload', raw(RESULT, text('0000000000000001000100000000000900', 'hex')), 4],
    ['a DRAIN with a payload', raw(8, Buffer.of(0)), 3],
    ['RESULTS without a result', raw(RESULTS, Buffer.alloc(0)), 4],
    ['too many results', raw(RESULTS, Buffer.alloc(10 * MAX_IDS + 10)), 4],
    ['HELLO that is no object', raw(HELLO, text('[1]')), 4],
    ['HELLO that is no JSON', raw(HELLO, text('{')), 4],
    ['HELLO over the limit', raw(HELLO, Buffer.alloc(4097, 32)), 3],
    ['PROOF of 31 bytes', raw(PROOF, Buffer.alloc(31)), 4],
    ['PROOF of 33 bytes', raw(PROOF, Buffer.alloc(33)), 3],
    ['CREDIT of two bytes', raw(CREDIT, Buffer.alloc(2)), 4],
    ['CREDIT of five bytes', raw(CREDIT, Buffer.alloc(5)), 3],
    ['an ERROR without a code', raw(ERROR, Buffer.alloc(1)), 4],
    ['a NACK without a delay', raw(NACK, Buffer.alloc(8)), 4],
    ['an empty message', Buffer.alloc(0), 0],
    ['the largest body', raw(PROCESS, Buffer.alloc(10 + 8_388_608)), 0],
    ['a body over the limit', raw(PROCESS, Buffer.alloc(10 + 8_388_609)), 3],
  ];
  for (const [what, bytes, code] of cases) {
    assert.equal(codeOf(bytes), code, what);
  }
});

/** Numbers from 0 to 2^32 - 1 that a seed determines (mulberry32). */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

test('random bytes and damaged frames are decoded or refused, and what is decoded is encoded alike', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  const next = random(seed);
  const samples = [...examples().map(({ bytes }) => bytes), ...NEW_FRAMES.map(encode)];
  let decoded = 0;
  for (let i = 0; i < 20_000; i++) {
    let bytes;
    if (i % 2 === 0) {
      bytes = Buffer.from(Array.from({ length: next(40) }, () => next(256)));
      // A true beginning, so that payloads are reached.
      bytes = raw(next(16), bytes);
    } else {
      bytes = Buffer.from(samples[next(samples.length)]);
      for (let changes = 1 + next(3); changes > 0; changes--) {
        bytes[next(bytes.length)] = next(256);
      }
      bytes = bytes.subarray(0, bytes.length - (next(4) === 0 ? next(bytes.length) : 0));
    }
    let frames;
    try {
      frames = decode(bytes);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, `SEED=${seed} ${bytes.toString('hex')} ${error.stack}`);
      continue;
    }
    decoded += 1;
    if (frames.every(({ command }) => command !== HELLO)) {
      assert.deepEqual(Buffer.concat(frames.map(encode)), bytes, `SEED=${seed}`);
    }
  }
  assert.ok(decoded > 500, `only ${decoded}, SEED=${seed}`);
});

test('texts are cut at the border of a character', () => {
  assert.equal(cutText('short').toString(), 'short');
  assert.equal(cutText('x'.repeat(5000)).length, 4096);
  const euros = cutText('€'.repeat(2000));
  assert.equal(euros.length, 4095);
  assert.equal(euros.toString(), '€'.repeat(1365));
  assert.equal(cutText(`${'x'.repeat(4095)}😀`).toString(), 'x'.repeat(4095));
});
