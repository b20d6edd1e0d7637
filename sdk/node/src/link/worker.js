/**
 * The thread of the link: listens, keeps what is held, reports progress, and sends results, whatever the handlers do on
 * their thread. The two exchange blocks of many messages and many answers.
 *
 * From the handlers' thread: a block of answers (`Answers`), `{ drain: ms }`, or `'pong'`.
 * To it: a block of messages (`Jobs`), or a `Note`.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Jobs } from '../jobs.js';
import { Limiter } from '../limiter.js';
import { Lanes } from './lanes.js';
import { LinkSecret } from './secret.js';
import { Server } from './server.js';
import { Certificates } from './tls.js';

/**
 * @typedef {{ listening: import('node:net').AddressInfo, consumerId: string }
 *   | { failed: Error } | { ping: true } | { pause: boolean, lane: number } | { active: bigint | null }
 *   | { log: { level: 'warn' | 'info' | 'debug', name: string, details: Record<string, unknown> } }
 *   | { stopped: { held: number, kept: number } }} Note
 *
 * @typedef {{ group: string, consumerId: string, prefetch: number, host: string, port: number }} Place
 * @typedef {Place & import('./tls.js').TlsFiles & { linkSecretFile: string }} WorkerData
 */

/** How often held messages are reported, at least. */
const PROGRESS_MS = 1_000;
const MIN_PROGRESS_MS = 20;
/** After this long without an answer the handlers' thread counts as blocked. */
const BLOCKED_MS = 900;

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);
/** @type {WorkerData} */
const settings = workerData;
const jobs = new Jobs();
let flushing = false;
/** @type {NodeJS.Timeout | undefined} */
let ticker;
let stopping = false;
/** Since when the handlers' thread owes an answer. @type {number | null} */
let askedAt = null;

/** @param {Note} note */
function tell(note) {
  port.postMessage(note);
}

const limiter = new Limiter((level, name, details) => tell({ log: { level, name, details } }));
/** @type {import('../limiter.js').Event} */
const event = (level, name, details) => limiter.event(level, name, details);

/** Everything that arrived in one turn of the event loop goes to the handlers at once. */
function flush() {
  flushing = false;
  const block = jobs.take();
  port.postMessage(block, [block]);
}

const lanes = new Lanes(settings, {
  deliver: (lane, id, delivery, channel, body) => {
    jobs.add(lane, id, delivery, channel, body);
    if (!flushing) {
      flushing = true;
      setImmediate(flush);
    }
  },
  pause: (lane, pause) => tell({ pause, lane }),
  activated: (active) => tell({ active }),
  now: () => performance.now(),
});

/** @param {number} everyMs */
function tickEvery(everyMs) {
  clearInterval(ticker);
  ticker = setInterval(() => {
    lanes.tick();
    limiter.tick();
    ask();
  }, everyMs);
}

/** Asks the handlers' thread whether it is there. It is not while a handler blocks or computes. */
function ask() {
  const now = performance.now();
  if (askedAt === null) {
    askedAt = now;
    tell({ ping: true });
  } else if (now - askedAt >= BLOCKED_MS) {
    lanes.block(true);
  }
}

/** What the leaders of the lanes need. @type {Map<number, number>} */
const progressMs = new Map();

/**
 * @param {number} lane
 * @param {Record<string, unknown>} hello
 */
function hello(lane, { link_timeout_ms: linkTimeoutMs }) {
  progressMs.set(lane, typeof linkTimeoutMs === 'number' ? linkTimeoutMs / 3 : PROGRESS_MS);
  tickEvery(Math.min(PROGRESS_MS, Math.max(MIN_PROGRESS_MS, Math.min(...progressMs.values()))));
}

/** @type {Server | null} */
let server = null;

/**
 * Sends DRAIN, waits until everything is answered, and ends this thread.
 *
 * @param {number} timeoutMs
 */
function drain(timeoutMs) {
  lanes.drain();
  const deadline = performance.now() + timeoutMs;
  const check = async () => {
    if (!stopping && (lanes.isDrained() || performance.now() >= deadline)) {
      stopping = true;
      clearInterval(checker);
      clearInterval(ticker);
      const left = { held: lanes.heldCount, kept: lanes.awaitedCount };
      await server?.close();
      limiter.tick();
      tell({ stopped: left });
      port.close();
    }
  };
  const checker = setInterval(check, DRAIN_CHECK_MS);
}

const DRAIN_CHECK_MS = 10;

port.on('message', (message) => {
  if (message instanceof ArrayBuffer) {
    lanes.answer(message);
  } else if (message === 'pong') {
    askedAt = null;
    lanes.block(false);
  } else {
    drain(message.drain);
  }
});

try {
  const certificates = settings.tlsCert === '' ? null : new Certificates(settings, event);
  const secret = settings.linkSecretFile === '' ? null : new LinkSecret(settings.linkSecretFile, event);
  server = new Server(lanes, hello, event, certificates, secret);
  const address = await server.listen(settings.host, settings.port);
  lanes.terms.consumerId ||= addressText(address);
  tickEvery(PROGRESS_MS);
  tell({ listening: address, consumerId: lanes.terms.consumerId });
} catch (error) {
  tell({ failed: /** @type {Error} */ (error) });
  port.close();
}

/** @param {import('node:net').AddressInfo} address */
function addressText({ address, family, port: number }) {
  return family === 'IPv6' ? `[${address}]:${number}` : `${address}:${number}`;
}
