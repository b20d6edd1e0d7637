/**
 * The consumer: starts and stops the thread of the link (`link/worker.js`), and passes blocks of messages and answers
 * between it and the handlers, which run here (`pool.js`).
 */
import { Worker } from 'node:worker_threads';
import { line } from './logger.js';
import { Limiter } from './limiter.js';
import { Pool } from './pool.js';
import { STOP_MS, checked } from './settings.js';


export class Consumer {
  #settings;
  #pool;
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

  /**
   * @param {import('../index.js').Handler} handler
   * @param {import('../index.js').ConsumerOptions} [options]
   */
  constructor(handler, options = {}) {
    if (typeof handler !== 'function') {
      throw new TypeError('the handler is not a function');
    }
    this.#settings = checked(options);
    this.#consumerId = this.#settings.consumerId;
    const limiter = new Limiter((level, name, details) => this.#log(level, name, details));
    /** @param {ArrayBuffer} block */
    const send = (block) => this.#worker?.postMessage(block, [block]);
    this.#pool = new Pool(handler, this.#settings, send, limiter);
    // If nothing awaits it, an error is not one more: `start` has rejected, or it was logged.
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
    return this.#pool.held;
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

  async start() {
    if (this.#stopping !== null) {
      throw new Error('the consumer was stopped: make another one');
    }
    this.#starting ??= this.#start();
    await this.#starting;
  }

  /** @returns {Promise<void>} */
  #start() {
    const { host, port, group, prefetch, consumerId, tlsCert, tlsKey, tlsClientCa, linkSecretFile } = this.#settings;
    // Options of the program, such as a loader of TypeScript, are not for this thread.
    const worker = new Worker(new URL('link/worker.js', import.meta.url), {
      workerData: { host, port, group, prefetch, consumerId, tlsCert, tlsKey, tlsClientCa, linkSecretFile },
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
        this.#pool.deliver(message, this.#consumerId);
      } else if ('ping' in message) {
        worker.postMessage('pong');
      } else if ('log' in message) {
        this.#log(message.log.level, message.log.name, message.log.details);
      } else if ('pause' in message) {
        this.#pool.pause(message.lane, message.pause);
      } else if ('active' in message) {
        this.#epoch = message.active;
      } else if ('listening' in message) {
        this.#address = message.listening;
        this.#consumerId = message.consumerId;
        this.#log('info', 'listening', { address: `${message.listening.address}:${message.listening.port}`, group });
        if (tlsClientCa === '' && linkSecretFile === '' && !isLoopback(message.listening.address)) {
          this.#log('warn', 'listens-openly', { address: message.listening.address, problem: OPEN });
        }
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
    this.#pool.flush();
    // Before the messages that are returned, which would count as failed without it.
    this.#worker.postMessage({ drain: drainTimeoutMs });
    this.#pool.close();
    const worker = this.#worker;
    const limit = setTimeout(() => worker.terminate(), drainTimeoutMs + STOP_MS);
    try {
      await this.#ended.promise;
    } finally {
      clearTimeout(limit);
    }
  }

  /**
   * @param {'error' | 'warn' | 'info' | 'debug'} level
   * @param {string} event
   * @param {Record<string, unknown>} details
   */
  #log(level, event, details) {
    try {
      this.#settings.logger[level]?.(line(event, details));
    } catch {
      // A logger that fails must end neither a message nor the consumer.
    }
  }
}

const OPEN =
  'whoever reaches this address may claim to be the dispatcher; give linkSecretFile here and --link-secret-file to ' +
  'the dispatchers, or require certificates of them with tlsClientCa';

/** @param {string} address */
function isLoopback(address) {
  return address === '::1' || /^(::ffff:)?127\./.test(address);
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
