import assert from 'node:assert/strict';
import test from 'node:test';
import { Consumer } from '../src/index.js';
import { line } from '../src/logger.js';
import { Limiter } from '../src/limiter.js';
import { checked } from '../src/settings.js';

test('defaults', () => {
  const { logger, ...rest } = checked({ prefetch: undefined });
  assert.equal(typeof logger.warn, 'function');
  assert.deepEqual(rest, {
    host: '127.0.0.1', port: 6969, group: 'messages', consumerId: '', concurrency: 16, prefetch: 1024,
    handlerTimeoutMs: 0, drainTimeoutMs: 7000, retry: undefined, trace: false,
    tlsCert: '', tlsKey: '', tlsClientCa: '', linkSecretFile: '',
  });
  assert.deepEqual(checked({ listen: '[::1]:0' }).host, '::1');
});

test('a wrong setting is named', () => {
  const wrong = {
    listen: ['6969', 'host', 'host:99999', ':1', '::1:5', 7],
    group: ['', 'g'.repeat(4097), null, '{orders/1}', 'shop:{orders/65535}:eu', '{a/1/2}', 'a}{b/3}', '{a/1}{b}'],
    consumerId: ['a b', 'a\0', 'ä'.repeat(129), 7],
    concurrency: [0, 1.5, '4', 65_537],
    prefetch: [0, 65_537],
    handlerTimeoutMs: [-1, 2 ** 31],
    drainTimeoutMs: [NaN],
    tlsCert: ['', 7, null, 'only.pem'],
    tlsKey: [7, 'only.key'],
    linkSecretFile: ['', 7],
    tlsClientCa: [7, 'only-ca.pem'],
    trace: [1, 'yes', null],
    logger: [{}, null, { warn() {} }],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const of = (error) => error.message.includes(name) && error.message.length < 8_300;
      assert.throws(() => new Consumer(() => {}, { [name]: value }), of, `${name} ${value}`);
    }
  }
  for (const group of ['orders/1', '{orders}/1', '{orders/x}', '{orders/0}', '{orders/01}', '{/1}', '{a/70000}']) {
    assert.equal(checked({ group }).group, group);
  }
  assert.throws(() => checked({ group: '{orders/1}' }), /a lane of another group: give that group, or another name/);
  assert.throws(() => new Consumer(() => {}, { prefetsch: 1 }), /no setting prefetsch/);
  assert.throws(() => new Consumer({}), TypeError);
});

test('a log line has pairs that a program can split', () => {
  assert.equal(line('left', { peer: '127.0.0.1:5', reason: 'a "b"\nc', held: 0 }),
    'event=left peer=127.0.0.1:5 reason="a \\"b\\"\\nc" held=0');
});

test('an event that repeats is counted instead of logged', () => {
  let now = 0;
  const lines = [];
  const limiter = new Limiter((level, name, details) => lines.push([name, details]), () => now);
  for (let i = 0; i < 12; i++) {
    limiter.event('warn', 'refused', { i });
  }
  limiter.tick();
  assert.equal(lines.length, 5);
  now = 10_000;
  limiter.tick();
  assert.deepEqual(lines[5], ['refused', { suppressed: 7 }]);
  limiter.event('warn', 'refused', { i: 12 });
  assert.equal(lines.length, 7);
  for (const code of [6, 11, 500, 501]) {
    for (let i = 0; i < 6; i++) {
      limiter.event('warn', 'refused-with', { code });
    }
  }
  now = 20_000;
  limiter.tick();
  const suppressed = lines.filter(([name, details]) => name === 'refused-with' && 'suppressed' in details);
  assert.deepEqual(suppressed.map(([, details]) => details), [
    { code: 6, suppressed: 1 }, { code: 11, suppressed: 1 }, { suppressed: 7 },
  ]);
});
