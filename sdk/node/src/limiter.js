/**
 * Limits how often an event is logged, because strangers can cause some of them.
 *
 * @typedef {(level: 'warn' | 'info' | 'debug', name: string, details: Record<string, unknown>) => void} Event
 */

const EVENTS = 5;
const PERIOD_MS = 10_000;

export class Limiter {
  /** @type {Map<string, { count: number, since: number, level: 'warn' | 'info' | 'debug' }>} */
  #seen = new Map();

  /**
   * @param {Event} log
   * @param {() => number} [now]
   */
  constructor(log, now = () => performance.now()) {
    this.log = log;
    this.now = now;
  }

  /**
   * @param {'warn' | 'info' | 'debug'} level
   * @param {string} name
   * @param {Record<string, unknown>} details
   */
  event(level, name, details) {
    const seen = this.#seen.get(name) ?? { count: 0, since: this.now(), level };
    this.#seen.set(name, seen);
    seen.count += 1;
    if (seen.count <= EVENTS) {
      this.log(level, name, details);
    }
  }

  /** Reports what was suppressed. To be called regularly. */
  tick() {
    for (const [name, { count, since, level }] of this.#seen) {
      if (this.now() - since >= PERIOD_MS) {
        this.#seen.delete(name);
        if (count > EVENTS) {
          this.log(level, name, { suppressed: count - EVENTS });
        }
      }
    }
  }
}
