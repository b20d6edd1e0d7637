/** Messages that wait for a handler. Lanes with messages take turns, whatever each of them has waiting. */

/** This many messages whose handlers were started may be in a queue's memory. */
const MAX_STARTED = 1_024;

/** @typedef {import('./delivery.js').Delivery} Delivery */

/** Those of one lane. */
class Waiting {
  /** From `next` on. @type {Delivery[]} */
  deliveries = [];
  next = 0;
  isPaused = false;
  isInLine = false;

  take() {
    const delivery = this.deliveries[this.next];
    this.next += 1;
    // While messages keep coming the queue may never be empty.
    if (this.next === this.deliveries.length || this.next > MAX_STARTED) {
      this.deliveries = this.deliveries.slice(this.next);
      this.next = 0;
    }
    return delivery;
  }

  get isEmpty() {
    return this.next === this.deliveries.length;
  }
}

export class Turns {
  /** @type {Map<number, Waiting>} */
  #lanes = new Map();
  /** Those with messages, in the order in which they get the next handler. @type {Waiting[]} */
  #line = [];
  /** Messages of all lanes. */
  length = 0;

  /** @param {Delivery} delivery */
  push(delivery) {
    const waiting = this.#waiting(delivery.lane);
    waiting.deliveries.push(delivery);
    this.length += 1;
    if (!waiting.isInLine) {
      waiting.isInLine = true;
      this.#line.push(waiting);
    }
  }

  /** @returns {Delivery | undefined} the next message; undefined: all lanes that have some are paused */
  next() {
    for (let i = this.#line.length; i > 0; i--) {
      const waiting = /** @type {Waiting} */ (this.#line.shift());
      const delivery = waiting.isPaused ? undefined : waiting.take();
      waiting.isInLine = !waiting.isEmpty;
      if (waiting.isInLine) {
        this.#line.push(waiting);
      }
      if (delivery !== undefined) {
        this.length -= 1;
        return delivery;
      }
    }
    return undefined;
  }

  /**
   * Whether handlers may not be started for a lane's messages.
   *
   * @param {number} lane
   * @param {boolean} isPaused
   */
  pause(lane, isPaused) {
    this.#waiting(lane).isPaused = isPaused;
  }

  /** Takes out all messages, those of paused lanes as well. */
  takeAll() {
    const all = this.#line.flatMap((waiting) => waiting.deliveries.slice(waiting.next));
    for (const waiting of this.#line) {
      Object.assign(waiting, { deliveries: [], next: 0, isInLine: false });
    }
    this.#line = [];
    this.length = 0;
    return all;
  }

  /** @param {number} lane */
  #waiting(lane) {
    let waiting = this.#lanes.get(lane);
    if (waiting === undefined) {
      waiting = new Waiting();
      this.#lanes.set(lane, waiting);
    }
    return waiting;
  }
}
