/**
 * A consumer's own policy for failed messages: how long each waits for its next delivery. The same forms as the setting
 * `--retry` of dispatchers and of the consumer program.
 */

/** @type {Record<string, number>} */
const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
const SHORTEST_MS = 1;
const LONGEST_MS = 86_400_000;
const MOST_FACTOR = 100;
/** The longest jitter, as a fraction of the wait. */
const MOST_JITTER = 0.25;
const NUMBER = '(\\d+(?:\\.\\d+)?)';
const WAIT = `${NUMBER}(ms|s|m|h)`;
const FIXED = new RegExp(`^fixed:${WAIT}$`);
const EXPONENTIAL = new RegExp(`^exponential:${WAIT}\\.\\.${WAIT}\\*${NUMBER}$`);

/** How long a failed message waits. */
export class RetryPolicy {
  #first = 0;
  #most = 0;
  #factor = 1;

  /**
   * @param {unknown} text
   * @throws {TypeError} for what is no policy
   */
  constructor(text) {
    const given = typeof text === 'string' ? text : '';
    const fixed = FIXED.exec(given);
    const exponential = EXPONENTIAL.exec(given);
    if (fixed !== null) {
      this.#first = this.#most = waitOf(fixed[1], fixed[2]);
    } else if (exponential !== null) {
      this.#first = waitOf(exponential[1], exponential[2]);
      this.#most = waitOf(exponential[3], exponential[4]);
      this.#factor = Number(exponential[5]);
    }
    const isOrdered = this.#first <= this.#most && this.#factor >= 1 && this.#factor <= MOST_FACTOR;
    if (given !== 'none' && !(isOrdered && this.#most > 0)) {
      throw new TypeError(
        'retry is not exponential:FIRST..MOST*FACTOR such as exponential:200ms..5m*4, fixed:WAIT such as fixed:5s, ' +
          `or none, with waits from 1ms to 24h: ${String(text)}`,
      );
    }
  }

  /**
   * The milliseconds before the delivery with this number, without jitter.
   *
   * @param {number} delivery
   */
  wait(delivery) {
    return Math.min(this.#first * this.#factor ** Math.max(delivery - 2, 0), this.#most);
  }

  /**
   * The delay of a NACK after the delivery with this number, with jitter. At least 1, because 0 would leave it open.
   *
   * @param {number} failed
   * @param {number} chance from 0 to 1
   */
  delayMs(failed, chance = Math.random()) {
    return Math.max(1, Math.ceil(this.wait(failed + 1) * (1 + MOST_JITTER * chance)));
  }
}

/**
 * @param {string} number
 * @param {string} unit
 * @returns {number} NaN if it is out of bounds
 */
function waitOf(number, unit) {
  const ms = Number(number) * UNITS_MS[unit];
  return ms >= SHORTEST_MS && ms <= LONGEST_MS ? ms : NaN;
}
