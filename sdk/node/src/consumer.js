/**
 * The consumer on the thread of the program: runs handlers. The link is on a thread of its own (`link/worker.js`).
 *
 * Messages arrive in blocks and wait in a queue. Answers leave in blocks: at the end of a turn of the event loop, or
 * after the handler during which 1 ms has passed since the last block. While handlers that return at once run one after
 * the other, the program gets a turn every 5 ms.
 */
import { Worker } from 'node:worker_threads';
import { DELAY_BY_BACKOFF } from './frames.js';
import { unpack } from './jobs.js';
import { line } from './logger.js';
import { Limiter } from './limiter.js';
import { Answers, Reject, Retry, failure } from './outcome.js';
import { checked } from './settings.js';

/** How long handlers run in one turn of the event loop. */
const TURN_MS = 5;
/** How old answers become while handlers run, and how much they may be. */
const FLUSH_MS = 1;
const FLUSH_BYTES = 131_072;
/** How long the thread of the link may take to end, beside the time for draining. */
const STOP_MS = 5_000;
const NO_REASON = Buffer.alloc(0);

/** @typedef {import('./delivery.js').Delivery} Delivery */

export class Consumer {
  #settings;
  #handler;
  #limiter;
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Promise<void> | null} */
  #starting = null;
  /** @type {Promise<void> | null} */
  #stopping = null;
  /** Settles when the thread of the link has ended. */
  #ended = deferred();
  /** @type {import('node:net').AddressInfo | null} */
  #address = null;
  #consumerId;
  /** @type {bigint | null} */
  #epoch = null;

  /** Messages that wait, from `#next` on. @type {Delivery[]} */
  #queue = [];
  #next = 0;
  /** Handlers that have not ended. */
  #running = 0;
  #paused = false;
  #answers = new Answers();
  #flushedAt = 0;
  #flushPlanned = false;
  #turnEnds = 0;
  #turnPlanned = false;
  #pumping = false;

  /**
   * @param {import('../index.js').Handler} handler
   * @param {import('../index.js').ConsumerOptions} [options]
   */
  constructor(handler, options = {}) {
    if (typeof handler !== 'function') {
      throw new TypeError('the handler is not a function');
    }
    this.#handler = handler;
    this.#settings = checked(options);
    this.#consumerId = this.#settings.consumerId;
    this.#limiter = new Limiter((level, name, details) => this.#log(level, name, details));
    // Whoever awaits it gets the error; if nothing does, it was logged.
    this.#ended.promise.catch(() => {});
  }

  get address() {
    return this.#address === null ? null : { host: this.#address.address, port: this.#address.port };
  }

  get consumerId() {
    return this.#consumerId;
  }

  get isConnected() {
    return this.#epoch !== null;
  }

  get held() {
    return this.#queue.length - this.#next + this.#running;
  }

  async run() {
    await this.start();
    const stop = () => {
      off();
      this.stop().catch(() => {});
    };
    const off = () => SIGNALS.forEach((signal) => process.off(signal, stop));
    SIGNALS.forEach((signal) => process.on(signal, stop));
    try {
      await this.#ended.promise;
    } finally {
      off();
    }
  }

  start() {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  /** @returns {Promise<void>} */
  #start() {
    const { host, port, group, prefetch, consumerId } = this.#settings;
    // Options of the program, such as a loader of TypeScript, are not for this thread.
    const worker = new Worker(new URL('link/worker.js', import.meta.url), {
      workerData: { host, port, group, prefetch, consumerId },
      execArgv: [],
    });
    this.#worker = worker;
    const listening = deferred();
    let stopped = false;
    /** @param {Error} error */
    const fail = (error) => {
      listening.reject(error);
      this.#ended.reject(error);
    };
    worker.on('message', (message) => {
      if (message instanceof ArrayBuffer) {
        this.#deliver(message);
      } else if ('ping' in message) {
        worker.postMessage('pong');
      } else if ('log' in message) {
        this.#log(message.log.level, message.log.name, message.log.details);
      } else if ('pause' in message) {
        this.#paused = message.pause;
        this.#turn();
      } else if ('active' in message) {
        this.#epoch = message.active;
      } else if ('listening' in message) {
        this.#address = message.listening;
        this.#consumerId = message.consumerId;
        this.#log('info', 'listening', { address: `${message.listening.address}:${message.listening.port}`, group });
        listening.resolve();
      } else if ('stopped' in message) {
        stopped = true;
        const { held, kept } = message.stopped;
        this.#log(held + kept > 0 ? 'warn' : 'info', 'stopped', { unfinished: held, unconfirmed: kept });
      } else {
        fail(message.failed);
      }
    });
    worker.on('error', (error) => {
      this.#log('error', 'bug', { thread: 'link', problem: error.stack ?? error.message });
      fail(error);
    });
    worker.on('exit', () => {
      this.#epoch = null;
      if (stopped) {
        this.#ended.resolve();
      }
      fail(new Error('the thread of the link has ended'));
    });
    return listening.promise;
  }

  stop() {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop() {
    if (this.#worker === null) {
      throw new Error('the consumer was not started');
    }
    await this.#starting;
    const { drainTimeoutMs } = this.#settings;
    this.#log('info', 'draining', { held: this.held });
    this.#flush();
    this.#worker.postMessage({ drain: drainTimeoutMs });
    this.#returnWaiting();
    const worker = this.#worker;
    const limit = setTimeout(() => worker.terminate(), drainTimeoutMs + STOP_MS);
    try {
      await this.#ended.promise;
    } finally {
      clearTimeout(limit);
    }
  }

  /** Gives the messages that no handler has started back to the leader. They are delivered again, uncounted. */
  #returnWaiting() {
    for (; this.#next < this.#queue.length; this.#next++) {
      this.#answers.failed(this.#queue[this.#next].id, DELAY_BY_BACKOFF, NO_REASON);
    }
    this.#queue = [];
    this.#next = 0;
    this.#flush();
  }

  /** @param {ArrayBuffer} block */
  #deliver(block) {
    unpack(block, this.#consumerId, this.#queue);
    if (this.#stopping !== null) {
      this.#returnWaiting();
    } else {
      this.#turn();
    }
  }

  /** Begins a turn: handlers may run for a while. */
  #turn() {
    this.#turnPlanned = false;
    this.#turnEnds = performance.now() + TURN_MS;
    this.#pump();
  }

  /** Starts handlers for waiting messages: the main loop. */
  #pump() {
    // A handler that ends at once comes back here.
    if (this.#pumping) {
      return;
    }
    this.#pumping = true;
    while (this.#next < this.#queue.length && this.#running < this.#settings.concurrency && !this.#paused) {
      const now = performance.now();
      if (this.#answers.length > FLUSH_BYTES || (this.#answers.length > 0 && now - this.#flushedAt > FLUSH_MS)) {
        this.#flush();
      }
      if (now > this.#turnEnds) {
        this.#planTurn();
        break;
      }
      const delivery = this.#queue[this.#next];
      this.#next += 1;
      this.#handle(delivery);
    }
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
    }
    this.#pumping = false;
  }

  #planTurn() {
    if (!this.#turnPlanned) {
      this.#turnPlanned = true;
      setImmediate(() => this.#turn());
    }
  }

  /** @param {Delivery} delivery */
  #handle(delivery) {
    this.#running += 1;
    let returned;
    try {
      returned = this.#handler(delivery);
    } catch (error) {
      this.#fail(delivery, error);
      return;
    }
    if (typeof returned !== 'object' || returned === null || !('then' in returned)) {
      this.#done(delivery, returned);
      return;
    }
    const promise = /** @type {Promise<unknown>} */ (returned);
    const { handlerTimeoutMs } = this.#settings;
    if (handlerTimeoutMs > 0) {
      this.#watch(delivery, promise, handlerTimeoutMs);
    } else {
      promise.then((outcome) => this.#done(delivery, outcome), (error) => this.#fail(delivery, error));
    }
  }

  /**
   * @param {Delivery} delivery
   * @param {Promise<unknown>} promise
   * @param {number} timeoutMs
   */
  #watch(delivery, promise, timeoutMs) {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#fail(delivery, new Retry(`the handler has run for longer than ${timeoutMs} ms`));
    }, timeoutMs);
    const end = (/** @type {() => void} */ action) => {
      clearTimeout(timer);
      if (isLate) {
        this.#limiter.event('info', 'late-answer-dropped', { id: delivery.hexId });
      } else {
        action();
      }
    };
    promise.then(
      (outcome) => end(() => this.#done(delivery, outcome)),
      (error) => end(() => this.#fail(delivery, error)),
    );
  }

  /**
   * @param {Delivery} delivery
   * @param {unknown} outcome
   */
  #done(delivery, outcome) {
    try {
      this.#answers.done(delivery.id, outcome);
    } catch (error) {
      this.#fail(delivery, error);
      return;
    }
    this.#answered();
  }

  /**
   * @param {Delivery} delivery
   * @param {unknown} error
   */
  #fail(delivery, error) {
    const { delay, reason } = failure(error);
    this.#answers.failed(delivery.id, delay, reason);
    const isMeant = error instanceof Retry || error instanceof Reject;
    const stack = !isMeant && error instanceof Error && error.stack ? { stack: error.stack } : {};
    const details = { id: delivery.hexId, delivery: delivery.number, reason: String(reason), ...stack };
    this.#limiter.event(isMeant ? 'info' : 'warn', isMeant ? 'handler-refused' : 'handler-failed', details);
    this.#answered();
  }

  #answered() {
    this.#running -= 1;
    if (!this.#flushPlanned) {
      this.#flushPlanned = true;
      setImmediate(() => {
        this.#flushPlanned = false;
        this.#flush();
        this.#limiter.tick();
      });
    }
    if (this.#next < this.#queue.length) {
      if (performance.now() > this.#turnEnds) {
        this.#planTurn();
      } else {
        this.#pump();
      }
    }
  }

  #flush() {
    this.#flushedAt = performance.now();
    if (this.#answers.length > 0) {
      const block = this.#answers.take();
      this.#worker?.postMessage(block, [block]);
    }
  }

  /**
   * @param {'error' | 'warn' | 'info' | 'debug'} level
   * @param {string} event
   * @param {Record<string, unknown>} details
   */
  #log(level, event, details) {
    this.#settings.logger[level]?.(line(event, details));
  }
}

/** @type {NodeJS.Signals[]} */
const SIGNALS = ['SIGTERM', 'SIGINT'];

function deferred() {
  /** @type {() => void} */
  let resolve = () => {};
  /** @type {(error: Error) => void} */
  let reject = () => {};
  /** @type {Promise<void>} */
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
