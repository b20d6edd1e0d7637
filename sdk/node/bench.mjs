/**
 * Measures how many messages a second a consumer takes from a real dispatcher:
 *
 *     node bench.mjs [--count 400000] [--rounds 3]
 *
 * The handler returns nothing at once, or one field from an async function. The consumer, both its threads together,
 * gets one core where `taskset` is there; then everything runs on all cores. Needs redis-server and the programs of
 * this repository (`ONCECAST_BIN`, or target/release).
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Consumer } from './src/index.js';
import { Cluster, freePort, programs, until } from './test/support/cluster.js';

const HANDLERS = {
  nothing: () => undefined,
  field: async (delivery) => ({ total: delivery.number }),
  json: async (delivery) => ({ ...delivery.json(), by: delivery.consumerId }),
};

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '400000' },
    rounds: { type: 'string', default: '3' },
    worker: { type: 'string' },
    listen: { type: 'string' },
  },
});

if (values.worker) {
  await work(HANDLERS[values.worker], values.listen);
} else {
  await measure(Number(values.count), Number(values.rounds));
}

async function work(handler, listen) {
  let calls = 0;
  let first = 0;
  let last = 0;
  const counting = (delivery) => {
    calls += 1;
    first ||= performance.now();
    last = performance.now();
    return handler(delivery);
  };
  const consumer = new Consumer(counting, { listen, logger: console });
  await consumer.run();
  const { user, system } = process.cpuUsage();
  console.log(`calls=${calls} ms=${(last - first).toFixed(0)} cpu_us=${((user + system) / calls).toFixed(2)}`);
}

async function measure(count, rounds) {
  const bin = programs();
  if (bin === null) {
    throw new Error('no oncecast-dispatcher and oncecast-publisher: cargo build --release, or set ONCECAST_BIN');
  }
  const hasTaskset = spawnSync('taskset', ['-c', '0', 'true']).status === 0;
  for (const handler of Object.keys(HANDLERS)) {
    for (const cores of hasTaskset ? ['one core', 'all cores'] : ['all cores']) {
      const rates = [];
      for (let round = 0; round < rounds; round++) {
        rates.push(await once(bin, count, handler, cores === 'one core'));
      }
      const byRate = rates.sort((a, b) => a.rate - b.rate);
      const { rate, cpu } = byRate[Math.floor(rounds / 2)];
      const range = `${byRate[0].rate} to ${byRate[rounds - 1].rate}`;
      console.log(`${handler.padEnd(8)} ${cores.padEnd(10)} ${rate}/s (${range}), ${cpu} µs of CPU per message`);
    }
  }
}

async function once(bin, count, handler, oneCore) {
  const cluster = await Cluster.start(bin);
  try {
    const listen = `127.0.0.1:${await freePort()}`;
    const node = [process.execPath, fileURLToPath(import.meta.url), '--worker', handler, '--listen', listen];
    const words = oneCore ? ['taskset', '-c', '0', ...node] : node;
    const worker = cluster.spawn(words[0], words.slice(1));
    await until('the consumer listens', () => worker.log().includes('event=listening'));
    const dispatcher = cluster.dispatcher([listen]);
    await until('the dispatcher is connected', () => worker.log().includes('event=dispatcher-rules'));
    await cluster.publisher(['--count', `${count}`]).ended;
    await until('all is done', async () => (await cluster.pending()) === 0, 120_000);
    worker.child.kill('SIGTERM');
    await worker.ended;
    dispatcher.child.kill('SIGTERM');
    await dispatcher.ended;
    const [, calls, ms, cpu] = /calls=(\d+) ms=(\d+) cpu_us=(\S+)/.exec(worker.log());
    if (Number(calls) < count) {
      throw new Error(`${calls} calls for ${count} messages`);
    }
    return { rate: Math.round((1000 * Number(calls)) / Number(ms)), cpu };
  } finally {
    await cluster.close();
  }
}
