/** TLS on the links: who is let in, what the log says of others, and renewal. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import { connect as connectTls } from 'node:tls';
import { Consumer } from '../src/index.js';
import { Certificates, hasOpenssl, openssl, replace } from './support/certificates.js';
import { QUIET, becomes, started } from './support/consumer.js';
import { Dispatcher, soon } from './support/dispatcher.js';

const files = hasOpenssl() ? new Certificates() : null;
const real = { skip: files === null ? 'no openssl' : false, timeout: 60_000 };

const tls = (more = {}) => ({ tlsCert: files.consumer.cert, tlsKey: files.consumer.key, ...more });
const mutual = () => tls({ tlsClientCa: files.authority.cert });
const ok = () => ({ ok: true });

/** What a dispatcher with this certificate is given. */
function client(identity = undefined, authority = files.authority) {
  const own = identity === undefined ? {} : { cert: readFileSync(identity.cert), key: readFileSync(identity.key) };
  return { ca: readFileSync(authority.cert), ...own };
}

function recorder() {
  const lines = [];
  const add = (line) => lines.push(line);
  return { lines, logger: { error: add, warn: add, info: add } };
}

const failures = (lines) => lines.filter((line) => line.includes('event=tls-failed'));

async function works(consumer, options, epoch = 1n, id = 1) {
  const dispatcher = await Dispatcher.leading(consumer, epoch, { options });
  dispatcher.deliver([id]);
  await dispatcher.results(1);
  dispatcher.recorded([id]);
  return dispatcher;
}

/** The end of a socket; `once` would throw what its errors say. */
function end(socket) {
  socket.on('error', () => {});
  socket.resume();
  return soon('the end', new Promise((resolve) => {
    socket.on('close', resolve);
  }));
}

/** A TLS connection that is refused. */
function refusal(consumer, options) {
  return end(connectTls({ port: consumer.address.port, host: '127.0.0.1', ...options }));
}

/** Sends this on a plain connection and reads to the end. */
async function plain(consumer, bytes, ends = false) {
  const socket = connect(consumer.address.port, '127.0.0.1');
  const closed = end(socket);
  socket.write(bytes);
  if (ends) {
    socket.end();
  }
  await closed;
}

test('a dispatcher with a certificate is served, with TLS 1.2 and 1.3 and each subprotocol', real, async (t) => {
  const consumer = await started(t, ok, mutual());
  let epoch = 0n;
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    for (const confirms of [true, false]) {
      const options = { ...client(files.dispatcher), minVersion: version, maxVersion: version };
      const dispatcher = await Dispatcher.leading(consumer, (epoch += 1n), { confirms, options });
      assert.equal(dispatcher.socket._socket.getProtocol(), version);
      dispatcher.deliver([Number(epoch)]);
      await dispatcher.results(1);
    }
  }
  const open = await started(t, ok, tls());
  await works(open, client());
});

test('who is refused, and what the log says', real, async (t) => {
  const { lines, logger } = recorder();
  const consumer = await started(t, ok, { ...mutual(), logger });
  const leading = await works(consumer, client(files.dispatcher));
  const expected = [
    ['it showed no certificate; give --tls-cert and --tls-key', () => refusal(consumer, client())],
    [`its certificate was not signed by an authority in ${files.authority.cert}`,
      () => refusal(consumer, client(files.stranger))],
    ['has expired; renew it', () => refusal(consumer, client(files.expired))],
    ['it speaks no TLS on this port', () => plain(consumer, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
    ['it closed the connection during the TLS handshake', () => plain(consumer, '\x16\x03\x01\x02\x00\x01', true)],
  ];
  for (const [i, [text, act]] of expected.entries()) {
    await act();
    await becomes(() => failures(lines).length > i);
    assert.equal(failures(lines).length, i + 1);
    assert.ok(failures(lines)[i].includes(text), failures(lines)[i]);
  }
  leading.deliver([2]);
  await leading.results(1);
});

test('a TLS client at a consumer without TLS', real, async (t) => {
  const { lines, logger } = recorder();
  const consumer = await started(t, ok, { logger });
  await refusal(consumer, client());
  await becomes(() => failures(lines).length === 1);
  assert.match(failures(lines)[0], /it begins with TLS.*tlsCert/);
  await Dispatcher.leading(consumer);
});

test('silent and broken connections keep nobody out', real, async (t) => {
  const { lines, logger } = recorder();
  const consumer = await started(t, ok, { ...mutual(), logger });
  const others = [];
  for (let i = 0; i < 120; i++) {
    const socket = connect(consumer.address.port, '127.0.0.1');
    others.push(end(socket));
    await once(socket, 'connect');
    socket.write([Buffer.alloc(0), Buffer.from('160301020001', 'hex'), randomBytes(64)][i % 3]);
  }
  const before = performance.now();
  const dispatcher = await works(consumer, client(files.dispatcher));
  assert.ok(performance.now() - before < 2_000);
  await Promise.all(others);
  assert.ok(lines.some((line) => line.includes('too many connections')));
  dispatcher.deliver([2]);
  await dispatcher.results(1);
  assert.ok(lines.length < 30, `${lines.length} lines`);
});

test('silent connections are said to be slow', real, async (t) => {
  const { lines, logger } = recorder();
  const consumer = await started(t, ok, { ...mutual(), logger });
  await plain(consumer, '\x16\x03\x01\x02\x00\x01');
  assert.match(failures(lines).join(), /it did not complete the TLS handshake in time/);
  assert.equal(failures(lines).length, 1);
});

test('much traffic in both directions at once', real, async (t) => {
  const consumer = await started(t, (delivery) => ({ body: delivery.payload }), tls({ prefetch: 16 }));
  const dispatcher = await Dispatcher.leading(consumer, 1n, { options: client() });
  const body = randomBytes(1 << 20);
  const count = 100;
  let next = 0;
  const more = () => next < count && dispatcher.deliver([++next], { body });
  for (let i = 0; i < 12; i++) {
    more();
  }
  const seen = new Set();
  while (seen.size < count) {
    for (const { id, fields } of await dispatcher.batch()) {
      assert.ok(fields[0].value.equals(body));
      seen.add(id);
      dispatcher.recorded([id]);
      more();
    }
  }
  await dispatcher.drop();
});

test('a session is not resumed, so that each connection shows its certificate', real, async (t) => {
  const consumer = await started(t, ok, mutual());
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
    const options = { port: consumer.address.port, host: '127.0.0.1', maxVersion, ...client(files.dispatcher) };
    const first = connectTls(options);
    let session;
    first.on('session', (given) => {
      session = given;
    });
    first.on('error', () => {});
    await soon('a connection', once(first, 'secureConnect'));
    session ??= first.getSession();
    first.destroy();
    const second = connectTls({ ...options, session });
    await soon('another', once(second, 'secureConnect'));
    assert.equal(second.isSessionReused(), false);
    second.destroy();
  }
});

test('certificates are read again; what can not be used is ignored and said once', real, async (t) => {
  const { lines, logger } = recorder();
  const at = (name) => join(files.folder, name);
  const [cert, key, ca] = [at('own.pem'), at('own.key'), at('own-ca.pem')];
  copyFileSync(files.consumer.cert, cert);
  copyFileSync(files.consumer.key, key);
  copyFileSync(files.authority.cert, ca);
  const consumer = await started(t, ok, { tlsCert: cert, tlsKey: key, tlsClientCa: ca, logger });
  const first = await works(consumer, client(files.dispatcher));
  const whole = readFileSync(cert);
  writeFileSync(cert, whole.subarray(0, whole.length / 2));
  await works(consumer, client(files.dispatcher), 2n, 2);
  (await Dispatcher.connect(consumer, [], client(files.dispatcher))).drop();
  const renewed = files.issue('renewed', files.other);
  replace(cert, readFileSync(renewed.cert));
  await works(consumer, client(files.dispatcher), 3n, 3);
  const unusable = lines.filter((line) => line.includes('event=certificates-unusable'));
  assert.equal(unusable.length, 2, unusable.join('\n'));
  assert.match(unusable[0], /tlsCert: .*own.pem: it must be a PEM file with a certificate/);
  assert.match(unusable[1], /tlsKey: .*own.key: it is not the key of the certificate/);
  replace(key, readFileSync(renewed.key));
  replace(ca, readFileSync(files.other.cert));
  const leading = await works(consumer, client(files.stranger, files.other), 4n, 4);
  assert.ok(lines.some((line) => line.includes('event=certificates-read')));
  await refusal(consumer, client(files.dispatcher, files.other));
  leading.deliver([5]);
  await leading.results(1);
  await first.closed;
});

test('files that can not be used are named', real, async () => {
  const at = (name) => join(files.folder, name);
  writeFileSync(at('rubbish'), 'rubbish');
  writeFileSync(at('half'), readFileSync(files.authority.cert, 'utf8').repeat(2).slice(0, -60));
  execFileSync('mkfifo', [at('pipe')]);
  openssl('pkey', '-in', files.consumer.key, '-aes256', '-passout', 'pass:x', '-out', at('encrypted'));
  for (const [options, problem] of [
    [{ tlsCert: at('none') }, /tlsCert: .*none: there is no such file/],
    [{ tlsCert: at('rubbish') }, /tlsCert: .*rubbish: it must be a PEM file with a certificate/],
    [{ tlsCert: at('pipe') }, /tlsCert: .*pipe: it is not a file/],
    [{ tlsKey: at('rubbish') }, /tlsKey: .*rubbish: it must be a PEM file with the certificate's key, not encrypted/],
    [{ tlsKey: at('encrypted') }, /tlsKey: .*encrypted: .* not encrypted/],
    [{ tlsKey: files.stranger.key }, /tlsKey: .*it is not the key of the certificate in/],
    [{ tlsClientCa: at('rubbish') }, /tlsClientCa: .*rubbish: it must be a PEM file with the certificates of/],
    [{ tlsClientCa: at('half') }, /tlsClientCa: .*half: it must be a PEM file with the certificates of/],
    [{ tlsClientCa: files.folder }, /tlsClientCa: .*: it is not a file/],
  ]) {
    const consumer = new Consumer(ok, { listen: '127.0.0.1:0', logger: QUIET, ...tls(options) });
    await assert.rejects(consumer.start(), problem);
  }
});
