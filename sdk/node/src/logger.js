/** Logging: one line of `key=value` pairs per event, to the logger that the program chose. */

/** @typedef {import('../index.js').Logger} Logger */

/**
 * Writes warnings to standard error.
 *
 * @type {Logger}
 */
const standard = {
  error: (line) => console.error(`${new Date().toISOString()} ERROR oncecast ${line}`),
  warn: (line) => console.error(`${new Date().toISOString()} WARN oncecast ${line}`),
};

/**
 * @param {unknown} logger
 * @returns {Logger}
 */
export function checkedLogger(logger = standard) {
  const { error, warn } = /** @type {Record<string, unknown>} */ (logger ?? {});
  if (typeof error !== 'function' || typeof warn !== 'function') {
    throw new TypeError('logger has no methods error and warn');
  }
  return /** @type {Logger} */ (logger);
}

/**
 * @param {string} event
 * @param {Record<string, unknown>} details
 */
export function line(event, details) {
  const pairs = Object.entries(details).map(([key, value]) => ` ${key}=${quoted(String(value))}`);
  return `event=${event}${pairs.join('')}`;
}

/** @param {string} value */
function quoted(value) {
  return /^[\w.:[\]/+-]+$/.test(value) ? value : JSON.stringify(value);
}
