/** The link secret: who is believed, the order of the frames, changing it, and which files can be used. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Consumer } from '../src/index.js';
import { ERROR, HELD, HELLO, LEAD, PROCESS, PROOF, READY } from '../src/frames.js';
import { Challenge, LinkSecret, proofOfConsumer, proofOfDispatcher } from '../src/link/secret.js';
import { replace } from './support/certificates.js';
import { QUIET, becomes, started } from './support/consumer.js';
import { Dispatcher, soon } from './support/dispatcher.js';

const SECRET = 'correct horse battery staple';
const NEWER = 'a newer secret of this group';
const NONCE = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const BOTH = ['oncecast.1', 'oncecast.2'];
const ok = () => ({ ok: true });

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'oncecast-secret-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function consumerWithSecret(t, options = {}) {
  const file = join(folder(t), 'secret');
  writeFileSync(file, `${SECRET}\n`, { mode: 0o600 });
  return { file, consumer: await started(t, ok, { linkSecretFile: file, ...options }) };
}

/** Connects with a nonce; `answer` has the headers of the consumer's answer. */
async function knowing(consumer, { secret = SECRET, nonce = NONCE.toString('hex'), protocols = BOTH } = {}) {
  let answer;
  const headers = nonce === null ? {} : { 'Oncecast-Nonce': nonce };
  const dispatcher = await Dispatcher.connect(consumer, protocols, {
    headers,
    finishRequest: (request) => {
      request.on('upgrade', (response) => {
        answer = response.headers;
      });
      request.end();
    },
  });
  const proof = (epoch = 1n, group = 'messages', other = secret) => {
    const ours = Buffer.from(answer['oncecast-nonce'], 'hex');
    return { command: PROOF, proof: proofOfDispatcher(Buffer.from(other), group, epoch, NONCE, ours) };
  };
  return Object.assign(dispatcher, { answer, proof });
}

const lead = (epoch = 1n, group = 'messages') => ({ command: LEAD, epoch, group });

async function works(dispatcher, epoch = 1n, id = 1) {
  dispatcher.send(dispatcher.proof(epoch), lead(epoch));
  await dispatcher.next(READY);
  await dispatcher.next(HELD);
  dispatcher.deliver([id]);
  await dispatcher.results(1);
  if (dispatcher.socket.protocol === 'oncecast.2') {
    dispatcher.recorded([id]);
  }
  return dispatcher;
}

test('vectors', () => {
  const ours = Buffer.from('101112131415161718191a1b1c1d1e1f', 'hex');
  const consumer = '3b46c32c4843f5e4a4426d13afb757cca6da5ee832132b695aabb852f94d96f7';
  const dispatcher = '8c24d0565e1014d6b906af99156b11b1ccf3b644c67fe569bda5317c9266b1ab';
  const [secret, epoch] = [Buffer.from(SECRET), 1_790_000_000_123n];
  assert.equal(proofOfConsumer(secret, 'messages', NONCE, ours).toString('hex'), consumer);
  assert.equal(proofOfDispatcher(secret, 'messages', epoch, NONCE, ours).toString('hex'), dispatcher);
  const challenge = new Challenge([Buffer.from(NEWER), secret], NONCE, ours);
  assert.ok(challenge.headers('messages')[1].endsWith(`, ${consumer}`));
  const proof = Buffer.from(dispatcher, 'hex');
  assert.ok(challenge.isMet(proof, epoch, 'messages'));
  assert.ok(!challenge.isMet(proof, epoch + 1n, 'messages') && !challenge.isMet(proof, epoch, 'others'));
});

test('both prove it, with each subprotocol and a new nonce each time', async (t) => {
  const { consumer } = await consumerWithSecret(t);
  const nonces = new Set();
  for (const [i, protocols] of [BOTH, ['oncecast.1'], []].entries()) {
    const dispatcher = await knowing(consumer, { protocols });
    const nonce = dispatcher.answer['oncecast-nonce'];
    nonces.add(nonce);
    const expected = proofOfConsumer(Buffer.from(SECRET), 'messages', NONCE, Buffer.from(nonce, 'hex'));
    assert.equal(dispatcher.answer['oncecast-proof'], expected.toString('hex'));
    await works(dispatcher, BigInt(i + 1), i + 1);
  }
  assert.equal(nonces.size, 3);
});

test('PROOF and LEAD may come in several messages', async (t) => {
  const { consumer } = await consumerWithSecret(t);
  const dispatcher = await knowing(consumer);
  dispatcher.send(dispatcher.proof(7n));
  dispatcher.raw(Buffer.alloc(0));
  dispatcher.send(lead(7n), { command: HELLO, hello: { link_timeout_ms: 900 } });
  await dispatcher.next(READY);
});

test('without a nonce the handshake is completed and refused', async (t) => {
  const { consumer } = await consumerWithSecret(t);
  for (const nonce of [null, '00', 'AB'.repeat(16), 'ab'.repeat(17), ['ab'.repeat(16), 'ab'.repeat(16)]]) {
    const dispatcher = await knowing(consumer, { nonce });
    assert.equal(dispatcher.answer['oncecast-nonce'], undefined);
    assert.equal(dispatcher.answer['oncecast-proof'], undefined);
    const { code, text } = await dispatcher.next(ERROR);
    assert.equal(code, 11);
    assert.match(text, /--link-secret-file/);
    await soon('the end', dispatcher.closed);
  }
});

test('what proves nothing is refused and not remembered', async (t) => {
  const lines = [];
  const logger = { error() {}, warn: (line) => lines.push(line) };
  const { consumer } = await consumerWithSecret(t, { logger });
  const far = 1_790_000_000_000n;
  const message = { command: PROCESS, id: 1, delivery: 1, body: Buffer.from('x') };
  for (const [make, code] of [
    [() => [lead(far)], 11],
    [() => [message], 11],
    [() => [{ command: PROOF, proof: Buffer.alloc(32) }, lead(far)], 11],
    [(proof) => [proof(far, 'messages', NEWER), lead(far)], 11],
    [(proof) => [proof(far + 1n), lead(far)], 11],
    [(proof) => [proof(far, 'others'), lead(far)], 11],
    [(proof) => [proof(far, 'others'), lead(far, 'others')], 7],
    [(proof) => [proof(far), message], 5],
    [(proof) => [proof(far), proof(far), lead(far)], 5],
  ]) {
    const dispatcher = await knowing(consumer);
    dispatcher.send(...make(dispatcher.proof));
    assert.equal(await dispatcher.error(), code);
  }
  const other = await knowing(consumer);
  other.raw(Buffer.of(2));
  assert.equal(await other.error(), 1);
  const first = await works(await knowing(consumer), 2n);
  const replayed = first.proof(3n);
  const again = await knowing(consumer);
  again.send(replayed, lead(3n));
  assert.equal(await again.error(), 11);
  first.send(first.proof(2n));
  assert.equal(await first.error(), 5);
  const refused = lines.filter((line) => line.includes('event=connection-refused') && line.includes('code=11'));
  assert.equal(refused.length, 5);
});

test('an ERROR before PROOF is heeded', async (t) => {
  const lines = [];
  const { consumer } = await consumerWithSecret(t, { logger: { error() {}, warn: (line) => lines.push(line) } });
  const dispatcher = await knowing(consumer);
  dispatcher.send({ command: ERROR, code: 11, text: 'it does not know the secret' });
  assert.equal(await soon('the end', dispatcher.closed), 1001);
  await becomes(() => lines.some((line) => line.includes('event=dispatcher-error') && line.includes('code=11')));
});

test('a consumer without a secret', async (t) => {
  const consumer = await started(t, ok);
  const dispatcher = await knowing(consumer);
  assert.equal(dispatcher.answer['oncecast-nonce'], undefined);
  assert.equal(dispatcher.answer['oncecast-proof'], undefined);
  dispatcher.send(lead());
  await dispatcher.next(READY);
  const other = await knowing(consumer);
  other.send({ command: PROOF, proof: Buffer.alloc(32) }, lead());
  assert.equal(await other.error(), 5);
});

test('the secret is changed while connected', async (t) => {
  const lines = [];
  const add = (line) => lines.push(line);
  const { file, consumer } = await consumerWithSecret(t, { logger: { error: add, warn: add, info: add } });
  await works(await knowing(consumer));
  replace(file, `${NEWER}\r\n\n  ${SECRET}\t\n`);
  const both = await knowing(consumer);
  assert.equal(both.answer['oncecast-proof'].split(', ').length, 2);
  await works(both, 2n, 2);
  await works(await knowing(consumer, { secret: NEWER }), 3n, 3);
  replace(file, NEWER);
  const old = await knowing(consumer);
  old.send(old.proof(4n), lead(4n));
  assert.equal(await old.error(), 11);
  writeFileSync(file, NEWER.slice(0, 3));
  (await knowing(consumer, { secret: NEWER })).drop();
  await works(await knowing(consumer, { secret: NEWER }), 5n, 5);
  unlinkSync(file);
  await works(await knowing(consumer, { secret: NEWER }), 6n, 6);
  const unusable = lines.filter((line) => line.includes('event=link-secret-unusable'));
  assert.equal(unusable.length, 2);
  assert.match(unusable[0], /16 to 1024 bytes/);
  assert.match(unusable[1], /no such file/);
  assert.ok(lines.some((line) => line.includes('event=link-secret-read')));
  assert.ok(!lines.some((line) => line.includes(NEWER)));
});

test('a right that is corrected is noticed', (t) => {
  const above = folder(t);
  chmodSync(above, 0o711);
  const path = join(above, 'secret');
  const write = (content, mode) => {
    writeFileSync(path, content);
    chmodSync(path, mode);
  };
  write(SECRET, 0o640);
  const secret = new LinkSecret(path, () => {});
  const now = () => secret.challenge(NONCE.toString('hex')).secrets.map(String);
  write(NEWER, 0o644);
  assert.deepEqual(now(), [SECRET], 'every user can read the new one');
  chmodSync(path, 0o640);
  assert.deepEqual(now(), [NEWER]);
});

test('which files can be used', async (t) => {
  const above = folder(t);
  chmodSync(above, 0o711);
  const path = join(above, 'secret');
  const secretsOf = (content, mode = 0o640) => {
    writeFileSync(path, content);
    chmodSync(path, mode);
    return new LinkSecret(path, () => {}).challenge(NONCE.toString('hex')).secrets;
  };
  assert.deepEqual(secretsOf(`\n \t${SECRET} \r\n\n`), [Buffer.from(SECRET)]);
  const bytes = Buffer.alloc(1024, 0xff);
  const two = secretsOf(Buffer.concat([Buffer.from(`${'x'.repeat(16)}\n`), bytes]));
  assert.deepEqual(two, [Buffer.alloc(16, 'x'), bytes]);
  for (const content of ['', '\n \n', 'x'.repeat(15), 'x'.repeat(1025), `${SECRET}\n`.repeat(3), `short\n${SECRET}`]) {
    assert.throws(() => secretsOf(content), /linkSecretFile: .*secret: /);
  }
  assert.throws(() => secretsOf(SECRET, 0o644), /every user can read it/);
  chmodSync(above, 0o700);
  assert.deepEqual(secretsOf(SECRET, 0o644), [Buffer.from(SECRET)]);
  const missing = new Consumer(ok, { listen: '127.0.0.1:0', logger: QUIET, linkSecretFile: `${path}.none` });
  await assert.rejects(missing.start(), /linkSecretFile: .*none: there is no such file/);
});

test('who listens beyond loopback without protection is warned', async (t) => {
  const { file } = await consumerWithSecret(t);
  for (const [options, warns] of [
    [{ listen: '0.0.0.0:0' }, true], [{ listen: '0.0.0.0:0', linkSecretFile: file }, false], [{}, false],
  ]) {
    const lines = [];
    await started(t, ok, { ...options, logger: { error() {}, warn: (line) => lines.push(line) } });
    assert.equal(lines.some((line) => line.includes('event=listens-openly')), warns);
  }
});
