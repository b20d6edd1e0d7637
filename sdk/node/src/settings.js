/** The settings of a consumer: defaults and checks. */
import { resolve } from 'node:path';
import { MAX_IDS, MAX_TEXT_BYTES } from './frames.js';
import { isLane } from './link/lanes.js';
import { checkedLogger } from './logger.js';
import { RetryPolicy } from './retry.js';

const DEFAULTS = {
  listen: '127.0.0.1:6969',
  group: 'messages',
  consumerId: '',
  concurrency: 16,
  prefetch: 1_024,
  handlerTimeoutMs: 0,
  drainTimeoutMs: 7_000,
  retry: undefined,
  trace: false,
  tlsCert: undefined,
  tlsKey: undefined,
  tlsClientCa: undefined,
  linkSecretFile: undefined,
  logger: undefined,
};

const MAX_ID_BYTES = 256;
/** The longest time that a timer measures. */
const MAX_MS = 0x7fff_ffff;
/** How long closing may take after the drain. */
export const STOP_MS = 5_000;

/**
 * @param {import('../index.js').ConsumerOptions} options
 * @throws {TypeError | RangeError} that names the setting
 */
export function checked(options) {
  for (const name of Object.keys(options)) {
    if (!(name in DEFAULTS)) {
      throw new TypeError(`there is no setting ${name}; there are ${Object.keys(DEFAULTS).join(', ')}`);
    }
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings = { ...DEFAULTS, ...given };
  return {
    ...addressOf(settings.listen),
    group: groupOf(settings.group),
    consumerId: idOf(settings.consumerId),
    concurrency: whole('concurrency', settings.concurrency, 1, MAX_IDS),
    prefetch: whole('prefetch', settings.prefetch, 1, MAX_IDS),
    handlerTimeoutMs: whole('handlerTimeoutMs', settings.handlerTimeoutMs, 0, MAX_MS),
    drainTimeoutMs: whole('drainTimeoutMs', settings.drainTimeoutMs, 0, MAX_MS - STOP_MS),
    retry: settings.retry === undefined ? undefined : new RetryPolicy(settings.retry),
    trace: flag('trace', settings.trace),
    ...tlsOf(settings),
    linkSecretFile: path('linkSecretFile', settings.linkSecretFile),
    logger: checkedLogger(settings.logger),
  };
}

/** @param {unknown} listen */
function addressOf(listen) {
  const found = typeof listen === 'string' ? /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(listen) : null;
  if (found === null || Number(found[3]) > 65_535) {
    throw new TypeError(`listen is not HOST:PORT: ${listen}`);
  }
  return { host: found[1] ?? found[2], port: Number(found[3]) };
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} most
 */
function text(name, value, most) {
  if (typeof value !== 'string' || value === '' || Buffer.byteLength(value) > most) {
    throw new TypeError(`${name} is not a text of 1 to ${most} bytes`);
  }
  return value;
}

/** @param {unknown} value */
function groupOf(value) {
  const group = text('group', value, MAX_TEXT_BYTES);
  if (isLane(group)) {
    const problem = '/ and a number end its braces, which names a lane of another group';
    throw new TypeError(`group can't be ${group}: ${problem}: give that group, or another name`);
  }
  return group;
}

/** @param {unknown} value */
function idOf(value) {
  // By default it is the address, which is known when the consumer listens.
  if (value === '') {
    return '';
  }
  const id = text('consumerId', value, MAX_ID_BYTES);
  if (/[\s\p{Cc}]/u.test(id)) {
    throw new TypeError('consumerId contains a space or a control character');
  }
  return id;
}

/** @param {{ tlsCert?: unknown, tlsKey?: unknown, tlsClientCa?: unknown }} settings */
function tlsOf(settings) {
  const files = {
    tlsCert: path('tlsCert', settings.tlsCert),
    tlsKey: path('tlsKey', settings.tlsKey),
    tlsClientCa: path('tlsClientCa', settings.tlsClientCa),
  };
  if ((files.tlsCert === '') !== (files.tlsKey === '')) {
    throw new TypeError('tlsCert and tlsKey belong together: give both or none');
  }
  if (files.tlsClientCa !== '' && files.tlsCert === '') {
    throw new TypeError('tlsClientCa needs tlsCert and tlsKey');
  }
  return files;
}

/**
 * Of a file; empty if none is given. An empty one that is given is a mistake, such as a variable that is not set.
 *
 * @param {string} name
 * @param {unknown} value
 */
function path(name, value) {
  if (value === undefined) {
    return '';
  }
  if (typeof value !== 'string' || value === '') {
    throw new TypeError(`${name} is not the path of a file`);
  }
  return resolve(value);
}

/**
 * @param {string} name
 * @param {unknown} value
 */
function flag(name, value) {
  if (typeof value !== 'boolean') {
    throw new TypeError(`${name} is not true or false: ${value}`);
  }
  return value;
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 */
function whole(name, value, least, most) {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} is not a whole number from ${least} to ${most}: ${value}`);
  }
  return value;
}
