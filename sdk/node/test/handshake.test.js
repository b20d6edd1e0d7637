/** Who may connect: sections 1 and 4 of PROTOCOL.md. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import test from 'node:test';
import { WebSocket } from 'ws';
import { Consumer } from '../src/index.js';
import { QUIET, becomes, echo, started } from './support/consumer.js';
import { Dispatcher, soon } from './support/dispatcher.js';

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

test('an address that is in use is an error of start and of run', async (t) => {
  const consumer = await started(t, echo);
  const listen = `127.0.0.1:${consumer.address.port}`;
  await assert.rejects(new Consumer(echo, { listen, logger: QUIET }).start(), /EADDRINUSE/);
  await assert.rejects(new Consumer(echo, { listen, logger: QUIET }).run(), /EADDRINUSE/);
  await assert.rejects(new Consumer(echo, { logger: QUIET }).stop(), /not started/);
  await consumer.stop();
  await assert.rejects(consumer.start(), /was stopped/);
});
