/**
 * Runs handlers on the thread of the program.
 *
 * Messages arrive in blocks and wait in a queue. Answers leave in blocks: at the end of a turn of the event loop, or
 * after the handler during which 1 ms has passed since the last block. While handlers that return at once run one after
 * the other, the program gets a turn every 5 ms.
 */
import { DELAY_BY_BACKOFF } from './frames.js';
import { unpack } from './jobs.js';
import { Answers, Reject, Retry, failure } from './outcome.js';
import { Turns } from './turns.js';

/** How long handlers run in one turn of the event loop. */
const TURN_MS = 5;
/** How old answers become while handlers run, and how much they may be. */
const FLUSH_MS = 1;
const FLUSH_BYTES = 131_072;
const NO_REASON = Buffer.alloc(0);

/** @typedef {import('./delivery.js').Delivery} Delivery */
/** @typedef {import('./retry.js').RetryPolicy} RetryPolicy */

export class Pool {
  #handler;
  #settings;
  #send;
  #limiter;
  /** Messages that wait. */
  #turns = new Turns();
  /** Handlers that have not ended. */
  #running = 0;
  /** Nothing is started any more. */
  #closed = false;
  #answers = new Answers();
  #flushedAt = 0;
  #flushPlanned = false;
  #turnEnds = 0;
  #turnPlanned = false;
  #pumping = false;

  /**
   * @param {import('../index.js').Handler} handler
   * @param {{ concurrency: number, handlerTimeoutMs: number, retry?: RetryPolicy, trace: boolean }} settings
   * @param {(answers: ArrayBuffer) => void} send to the thread of the link
   * @param {import('./limiter.js').Limiter} limiter
   */
  constructor(handler, settings, send, limiter) {
    this.#handler = handler;
    this.#settings = settings;
    this.#send = send;
    this.#limiter = limiter;
  }

  /** Messages that wait or are at work. */
  get held() {
    return this.#turns.length + this.#running;
  }

  /**
   * Whether handlers may not be started for messages of a lane.
   *
   * @param {number} lane
   * @param {boolean} paused
   */
  pause(lane, paused) {
    this.#turns.pause(lane, paused);
    this.#turn();
  }

  /** Starts nothing any more: messages that wait, and those to come, are returned. */
  close() {
    this.#closed = true;
    this.#returnWaiting();
  }

  /**
   * Messages have arrived.
   *
   * @param {ArrayBuffer} block
   * @param {string} consumerId
   */
  deliver(block, consumerId) {
    unpack(block, consumerId, this.#turns);
    if (this.#closed) {
      this.#returnWaiting();
    } else {
      this.#turn();
    }
  }

  /** Gives the messages that no handler has started back to the leader. They are delivered again, uncounted. */
  #returnWaiting() {
    for (const { id, lane } of this.#turns.takeAll()) {
      this.#answers.failed(id, DELAY_BY_BACKOFF, NO_REASON, lane);
    }
    this.flush();
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
    try {
      while (this.#turns.length > 0 && this.#running < this.#settings.concurrency) {
        const now = performance.now();
        if (this.#answers.length > FLUSH_BYTES || now - this.#flushedAt > FLUSH_MS) {
          this.flush();
        }
        if (now > this.#turnEnds) {
          this.#planTurn();
          break;
        }
        const delivery = this.#turns.next();
        if (delivery === undefined) {
          break;
        }
        this.#handle(delivery);
      }
    } finally {
      this.#pumping = false;
    }
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
    let isPromise;
    try {
      returned = this.#handler(delivery);
      isPromise = typeof (/** @type {any} */ (returned)?.then) === 'function';
    } catch (error) {
      this.#fail(delivery, error);
      return;
    }
    if (!isPromise) {
      this.#done(delivery, returned);
      return;
    }
    // Another kind of promise may throw, or settle twice.
    const promise = Promise.resolve(returned);
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
        this.#limiter.event('info', 'late-answer-dropped', { id: delivery.key });
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
      this.#answers.done(delivery.id, outcome, delivery.lane);
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
    const { delay, reason } = failure(error, this.#settings.retry?.delayMs(delivery.number));
    this.#answers.failed(delivery.id, delay, reason, delivery.lane);
    try {
      this.#logFailure(delivery, error, reason);
    } catch {
      // The program's logger has failed, or what was thrown can't be looked at. The message was answered.
    }
    this.#answered();
  }

  /**
   * @param {Delivery} delivery
   * @param {unknown} error
   * @param {string | Buffer} reason
   */
  #logFailure(delivery, error, reason) {
    const isMeant = error instanceof Retry || error instanceof Reject;
    const stack = !isMeant && error instanceof Error && error.stack ? { stack: error.stack } : {};
    const traceparent = this.#settings.trace ? delivery.traceparent : undefined;
    const trace = traceparent === undefined ? {} : { traceparent };
    const details = { id: delivery.key, delivery: delivery.number, ...trace, reason: String(reason), ...stack };
    this.#limiter.event(isMeant ? 'info' : 'warn', isMeant ? 'handler-refused' : 'handler-failed', details);
  }

  #answered() {
    this.#running -= 1;
    if (!this.#flushPlanned) {
      this.#flushPlanned = true;
      setImmediate(() => {
        this.#flushPlanned = false;
        this.flush();
        this.#limiter.tick();
      });
    }
    if (this.#turns.length > 0) {
      if (performance.now() > this.#turnEnds) {
        this.#planTurn();
      } else {
        this.#pump();
      }
    }
  }

  /** Sends the answers so far. */
  flush() {
    this.#flushedAt = performance.now();
    if (this.#answers.length > 0) {
      this.#send(this.#answers.take());
    }
  }
}
