// The processes of the contender `bullmq`: its workers, and the load, whose options are those of `oncecast bench-load`.
// Run in a folder with the packages bullmq and ioredis.
//
// As its users run it: jobs are added with `addBulk`, workers keep many jobs in hand at once, finished jobs are removed,
// and what a job gives is recorded by its handler. Messages, results and the summary are those of the other contenders.
import { parseArgs } from 'node:util';

import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const text = (fallback) => ({ type: 'string', default: fallback });
const { values: options } = parseArgs({
  options: {
    role: text('load'),
    port: text('6379'),
    queue: text('messages'),
    results: text('messages:processed'),
    name: text('w0'),
    // What shows progress: results, or jobs that wait.
    progress: text('results'),
    first: text('0'),
    count: text('Infinity'),
    duration: text('Infinity'),
    rate: text('0'),
    window: text('50000'),
    payload: text('53'),
  },
});
const connection = { host: '127.0.0.1', port: Number(options.port), maxRetriesPerRequest: null };

const nowUs = () => Number(process.hrtime.bigint() / 1000n);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const hex = () => Math.floor(Math.random() * 2 ** 32).toString(16).padStart(8, '0');

/** How many jobs a worker has in hand. */
const CONCURRENCY = 100;
/** The most jobs that are added at once. */
const BATCH = 500;
/** After this long without a new result, none is expected any more. */
const QUIET_MS = 20_000;

async function work() {
  const redis = new Redis(connection);
  const handle = async ({ data }) => {
    const fields = Object.entries(data).flat();
    await redis.xadd(options.results, '*', ...fields, 'random_property', hex(), 'consumer_id', options.name);
  };
  const worker = new Worker(options.queue, handle, {
    connection,
    concurrency: CONCURRENCY,
    removeOnComplete: { count: 0 },
  });
  worker.on('error', (error) => {
    console.error(`bullmq: ${error}`);
    process.exit(1);
  });
  await worker.waitUntilReady();
  console.log('ready');
}

function message(number, timeUs, bytes) {
  const id = `oncecast-${String(number).padStart(10, '0')}-${String(timeUs).padStart(16, '0')}`;
  const plain = { message_id: id };
  const missing = bytes - JSON.stringify(plain).length;
  const around = ',"pad":""'.length;
  return missing < around ? plain : { ...plain, pad: 'x'.repeat(missing - around) };
}

async function load() {
  const numbers = ['first', 'count', 'rate', 'window', 'payload'].map((name) => Number(options[name]));
  const [first, count, rate, window, bytes] = numbers;
  const durationMs = Number(options.duration.replace('ms', ''));
  const redis = new Redis(connection);
  const queue = new Queue(options.queue, { connection });
  await queue.waitUntilReady();
  const begin = nowUs();
  const elapsedUs = () => nowUs() - begin;
  const done = () => (options.progress === 'results' ? redis.xlen(options.results) : queue.getWaitingCount());
  const before = await done();
  let [sent, recorded, changed] = [0, before, begin];
  const look = async () => {
    const now = await done();
    if (now !== recorded) [recorded, changed] = [now, nowUs()];
    return nowUs() - changed < QUIET_MS * 1000;
  };
  const add = async (jobs, timeOf) => {
    const jobOf = (_, index) => ({ name: 'm', data: message(first + sent + index, timeOf(sent + index), bytes) });
    await queue.addBulk(Array.from({ length: jobs }, jobOf));
    sent += jobs;
  };
  while (sent < count && elapsedUs() < durationMs * 1000) {
    if (rate > 0) {
      const due = Math.min(count, Math.floor((elapsedUs() * rate) / 1e6) + 1);
      if (due > sent) await add(Math.min(due - sent, BATCH), (number) => begin + Math.floor((number * 1e6) / rate));
      else await sleep(1);
      continue;
    }
    const jobs = Math.min(BATCH, count - sent);
    if (first + sent + jobs - recorded > window) {
      await sleep(1);
      if (!(await look())) break;
      continue;
    }
    const now = nowUs();
    await add(jobs, () => now);
    await look();
  }
  await look();
  const [recordedWhileSending, sendingUs] = [recorded - before, elapsedUs()];
  while (recorded < first + sent && (await look())) await sleep(1);
  const elapsed = elapsedUs();
  const { user, system } = process.cpuUsage();
  console.log([sent, 0, recordedWhileSending, sendingUs, recorded, elapsed, user + system].join(' '));
  process.exit(0);
}

await (options.role === 'worker' ? work() : load());
