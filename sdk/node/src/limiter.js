/**
 * Limits how often an event is logged, because strangers can cause some of them.
 *
 * @typedef {(level: 'warn' | 'info' | 'debug', name: string, details: Record<string, unknown>) => void} Event
 */
import { CODES } from './frames.js';

const EVENTS = 5;
const PERIOD_MS = 10_000;

export class Limiter {
  /**
   * @typedef {{ count: number, since: number, level: 'warn' | 'info' | 'debug', name: string, code?: unknown }} Seen
   * @type {Map<string, Seen>}
   */
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
    // Refusals of one kind must not hide others. Strangers may invent codes.
    const isKnown = typeof details.code === 'number' && details.code <= CODES.notAuthenticated;
    const key = isKnown ? `${name} ${details.code}` : name;
    const code = isKnown ? { code: details.code } : {};
    const seen = this.#seen.get(key) ?? { count: 0, since: this.now(), level, name, ...code };
    this.#seen.set(key, seen);
    seen.count += 1;
    if (seen.count <= EVENTS) {
      this.log(level, name, details);
    }
  }

  /** Reports what was suppressed. To be called regularly. */
  tick() {
    for (const [key, { count, since, level, name, code }] of this.#seen) {
      if (this.now() - since >= PERIOD_MS) {
        this.#seen.delete(key);
        if (count > EVENTS) {
          this.log(level, name, { ...(code === undefined ? {} : { code }), suppressed: count - EVENTS });
        }
      }
    }
  }
}
