/** With real dispatchers, a real publisher and a real Redis; see `support/cluster.js` for where they come from. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Certificates, hasOpenssl } from './support/certificates.js';
import { Cluster, freePort, programs, until } from './support/cluster.js';

const WORKER = fileURLToPath(new URL('support/worker.js', import.meta.url));

const bin = programs();
const skip = bin === null ? 'no programs: run cargo build, or set ONCECAST_BIN' : false;
const real = { skip, timeout: 120_000 };

async function start(t) {
  const cluster = await Cluster.start(bin);
  t.after(() => cluster.close());
  return cluster;
}

function worker(cluster, listen, mode = '', options = {}) {
  return cluster.spawnReady(process.execPath, [WORKER, listen, mode, JSON.stringify(options)], 'event=listening');
}

/** The number in a dispatcher's id, which begins with `d` and that number, if one leads. */
async function leader(cluster) {
  return until('a leader', async () => /^d(\d+)-/.exec(await cluster.redis('GET', 'messages:leader'))?.[1]);
}

async function connected(consumer) {
  await until('a dispatcher is connected', () => consumer.log().includes('event=dispatcher-rules'));
}

test('leaders and a consumer are killed under load: nothing is lost or recorded twice', real, async (t) => {
  const cluster = await start(t);
  const listens = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const consumers = [await worker(cluster, listens[0]), await worker(cluster, listens[1])];
  const dispatchers = [0, 1, 2, 3].map(() => null);
  const begin = (i) => {
    dispatchers[i] = cluster.dispatcher(listens, ['--dispatcher-id', `d${i}`, '--link-timeout-ms', '1000']);
  };
  begin(0);
  begin(1);
  await connected(consumers[0]);
  await connected(consumers[1]);
  const ids = join(cluster.folder, 'ids');
  const publisher = cluster.publisher(['--rate', '5000', '--duration', '8s', '--ids-file', ids]);
  for (let round = 0; round < 2; round++) {
    await sleep(1_500);
    dispatchers[Number(await leader(cluster))].child.kill('SIGKILL');
    begin(2 + round);
    await sleep(1_500);
    consumers[round].child.kill('SIGKILL');
    await consumers[round].ended;
    consumers[round] = await worker(cluster, listens[round]);
  }
  assert.equal(await publisher.ended, 0, publisher.log());
  await until('all is done', async () => (await cluster.pending()) === 0);
  const published = readFileSync(ids, 'utf8').trimEnd().split('\n');
  const recorded = await cluster.results('message_id');
  assert.ok(published.length > 30_000, `${published.length}`);
  assert.equal(recorded.length - new Set(recorded).size, 0, 'twice');
  assert.deepEqual([...new Set(recorded)].sort(), published.sort(), 'lost or foreign');
  assert.equal(await cluster.redis('XLEN', 'messages:dead'), '0');
  assert.equal(new Set(await cluster.results('by')).size, 2);
  for (const consumer of consumers) {
    consumer.child.kill('SIGTERM');
    assert.equal(await consumer.ended, 0, consumer.log());
  }
});

test('a handler blocks for six link timeouts: the link and the result survive', real, async (t) => {
  const cluster = await start(t);
  const listen = `127.0.0.1:${await freePort()}`;
  const consumer = await worker(cluster, listen, 'block');
  const dispatcher = cluster.dispatcher([listen], ['--link-timeout-ms', '1000']);
  await connected(consumer);
  await cluster.publisher(['--count', '3']).ended;
  await until('all is done', async () => (await cluster.pending()) === 0, 40_000);
  assert.deepEqual(await cluster.results('number'), ['1', '1', '1']);
  assert.doesNotMatch(dispatcher.log(), /event=consumer-lost|redelivered=[1-9]/);
});

test('SIGTERM: running handlers end, the rest goes to another consumer, uncounted', real, async (t) => {
  const cluster = await start(t);
  const listens = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const first = await worker(cluster, listens[0], 'slow');
  cluster.dispatcher(listens);
  await connected(first);
  await cluster.publisher(['--count', '40']).ended;
  await until('some are done', async () => (await cluster.pending()) < 40);
  const second = await worker(cluster, listens[1], 'slow');
  await connected(second);
  first.child.kill('SIGTERM');
  const begun = Date.now();
  assert.equal(await first.ended, 0, first.log());
  assert.ok(Date.now() - begun < 3_000);
  assert.match(first.log(), /event=stopped unfinished=0 unconfirmed=0/);
  await until('all is done', async () => (await cluster.pending()) === 0);
  const recorded = await cluster.results('message_id');
  assert.equal(new Set(recorded).size, 40);
  assert.equal(recorded.length, 40);
  assert.deepEqual([...new Set(await cluster.results('number'))], ['1']);
});

test('a rejected message is a dead letter', real, async (t) => {
  const cluster = await start(t);
  const listen = `127.0.0.1:${await freePort()}`;
  const consumer = await worker(cluster, listen, 'reject');
  cluster.dispatcher([listen]);
  await connected(consumer);
  await cluster.publisher(['--count', '1']).ended;
  await until('all is done', async () => (await cluster.redis('XLEN', 'messages:dead')) === '1');
  const dead = (await cluster.redis('XRANGE', 'messages:dead', '-', '+')).split('\n');
  assert.equal(dead[dead.indexOf('reason') + 1], 'not today');
  assert.match(consumer.log(), new RegExp(`event=handler-refused id=${dead[dead.indexOf('id') + 1]} delivery=1`));
});

const files = hasOpenssl() ? new Certificates() : null;
const withTls = { ...real, skip: skip || (files === null ? 'no openssl' : false) };

test('with TLS: certificates are renewed and the leader is killed under load', withTls, async (t) => {
  const cluster = await start(t);
  const listen = `127.0.0.1:${await freePort()}`;
  const tls = { tlsCert: files.consumer.cert, tlsKey: files.consumer.key, tlsClientCa: files.authority.cert };
  const consumer = await worker(cluster, listen, '', tls);
  const ours = ['--tls-ca', files.authority.cert, '--tls-cert', files.dispatcher.cert];
  ours.push('--tls-key', files.dispatcher.key, '--link-timeout-ms', '1000');
  const begin = (id) => cluster.dispatcher([`wss://${listen}`], ['--dispatcher-id', id, ...ours]);
  const dispatchers = ['d0', 'd1'].map(begin);
  await connected(consumer);
  await until('both hear what is published', () => dispatchers.every(({ log }) => log().includes('event=subscribed')));
  const ids = join(cluster.folder, 'ids');
  const publisher = cluster.publisher(['--rate', '3000', '--duration', '4s', '--ids-file', ids]);
  await until('some are done', async () => Number(await cluster.redis('XLEN', 'messages:processed')) > 3_000);
  files.issue('consumer');
  dispatchers[Number(await leader(cluster))].child.kill('SIGKILL');
  assert.equal(await publisher.ended, 0, publisher.log());
  await until('all is done', async () => (await cluster.pending()) === 0);
  const published = readFileSync(ids, 'utf8').trimEnd().split('\n');
  const recorded = await cluster.results('message_id');
  const missing = new Set(published);
  recorded.forEach((id) => missing.delete(id));
  assert.deepEqual([missing.size, recorded.length], [0, published.length]);
  assert.match(consumer.log(), /event=certificates-read/);
});

test('a dispatcher without TLS, and a consumer without it, say what is wrong', withTls, async (t) => {
  const cluster = await start(t);
  const [encrypted, plain] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const first = await worker(cluster, encrypted, '', { tlsCert: files.consumer.cert, tlsKey: files.consumer.key });
  const second = await worker(cluster, plain);
  const dispatcher = cluster.dispatcher([encrypted, `wss://${plain}`], ['--tls-ca', files.authority.cert]);
  await until('the first says it', () => first.log().includes('it speaks no TLS on this port'));
  await until('the second says it', () => second.log().includes('it begins with TLS, and this consumer has none'));
  await until('the dispatcher says it', () => dispatcher.log().includes('it speaks no TLS on this port'));
});

/** Whether the programs are new enough. */
function knowsSecrets() {
  if (bin === null) {
    return false;
  }
  const help = execFileSync(join(bin, 'oncecast-dispatcher'), ['--help'], { encoding: 'utf8' });
  return help.includes('--link-secret-file');
}

const withSecret = { ...real, skip: skip || (knowsSecrets() ? false : 'the programs have no --link-secret-file') };

test('a link secret is changed under load, and a dispatcher without it is refused', withSecret, async (t) => {
  const cluster = await start(t);
  const listen = `127.0.0.1:${await freePort()}`;
  const write = (name, ...lines) => {
    const path = join(cluster.folder, name);
    writeFileSync(path, lines.join('\n'), { mode: 0o600 });
    return path;
  };
  const [old, newer] = ['the secret of this group so far', 'the secret of this group from now on'];
  const file = write('consumer', old);
  const consumer = await worker(cluster, listen, '', { linkSecretFile: file });
  const begin = (id, ...options) => cluster.dispatcher([listen], ['--dispatcher-id', id, ...options]);
  const stranger = begin('d0');
  await until('it is refused', () => consumer.log().includes('code=11'));
  await until('it is told', () => stranger.log().includes('--link-secret-file'));
  stranger.child.kill('SIGKILL');
  const first = begin('d1', '--link-secret-file', write('first', old));
  await connected(consumer);
  const second = begin('d2', '--link-secret-file', write('second', newer));
  await until('it hears what is published', () => second.log().includes('event=subscribed'));
  const ids = join(cluster.folder, 'ids');
  const publisher = cluster.publisher(['--rate', '3000', '--duration', '4s', '--ids-file', ids]);
  await until('some are done', async () => Number(await cluster.redis('XLEN', 'messages:processed')) > 3_000);
  write('consumer', newer, old);
  first.child.kill('SIGKILL');
  assert.equal(await publisher.ended, 0, publisher.log());
  await until('all is done', async () => (await cluster.pending()) === 0);
  const published = readFileSync(ids, 'utf8').trimEnd().split('\n');
  const recorded = await cluster.results('message_id');
  const missing = new Set(published);
  recorded.forEach((id) => missing.delete(id));
  assert.deepEqual([missing.size, recorded.length], [0, published.length]);
  assert.match(consumer.log(), /event=link-secret-read/);
});
