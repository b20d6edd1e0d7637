/** A dispatcher that does what a test tells it to. */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { decode } from '../../src/decode.js';
import { encode } from '../../src/encode.js';
import {
  COMMANDS, DELIVER, ERROR, HELD, HELLO, LEAD, PROCESS, PROGRESS, READY, RECORDED, RESULT, RESULTS,
} from '../../src/frames.js';

const LIMIT_MS = 10_000;

/**
 * @template T
 * @param {string} what
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function soon(what, promise, limitMs = LIMIT_MS) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${limitMs} ms: ${what}`)), limitMs);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

export class Dispatcher {
  /** Frames that no test has asked for yet. */
  #frames = [];
  #wake = () => {};
  isClosed = false;

  constructor(socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => {
      socket.on('close', (code) => {
        this.isClosed = true;
        resolve(code);
        this.#wake();
      });
    });
    socket.on('error', () => {});
    socket.on('message', (data) => {
      this.#frames.push(...decode(data));
      this.#wake();
    });
  }

  /** @param {import('../../src/index.js').Consumer} consumer */
  static async connect({ address }, protocols = [], options = {}) {
    const url = `${options.ca === undefined ? 'ws' : 'wss'}://127.0.0.1:${address.port}${options.path ?? '/'}`;
    const socket = new WebSocket(url, protocols, { perMessageDeflate: false, ...options });
    const dispatcher = new Dispatcher(socket);
    await soon('a handshake', once(socket, 'open'));
    return dispatcher;
  }

  /** Connects, leads, and reads READY and HELD. */
  static async leading(consumer, epoch = 1n, { confirms = true, hello = {}, options = {} } = {}) {
    const dispatcher = await Dispatcher.connect(consumer, confirms ? ['oncecast.1', 'oncecast.2'] : [], options);
    dispatcher.lead(epoch, 'messages', confirms ? hello : undefined);
    dispatcher.ready = await dispatcher.next(READY);
    dispatcher.held = (await dispatcher.next(HELD)).ids;
    return dispatcher;
  }

  send(...frames) {
    this.raw(Buffer.concat(frames.map(encode)));
  }

  raw(bytes, options) {
    this.socket.send(bytes, options);
  }

  lead(epoch, group = 'messages', hello = undefined) {
    const frames = [{ command: LEAD, epoch, group }];
    this.send(...(hello === undefined ? frames : [...frames, { command: HELLO, hello }]));
  }

  /** Delivers messages with these ids, in one WebSocket message. */
  deliver(ids, { body = 'x', channel = undefined, delivery = 1 } = {}) {
    const rest = { delivery, body: Buffer.from(body) };
    const frame = (id) =>
      channel === undefined
        ? { command: PROCESS, id, ...rest }
        : { command: DELIVER, id, channel: Buffer.from(channel), ...rest };
    this.send(...ids.map(frame));
  }

  recorded(ids) {
    this.send({ command: RECORDED, ids });
  }

  /** The next frame of this kind. Those before it must be PROGRESS. */
  async next(command, limitMs = LIMIT_MS) {
    const deadline = performance.now() + limitMs;
    for (;;) {
      const frame = this.#frames.shift();
      if (frame === undefined) {
        if (this.isClosed) {
          throw new Error(`closed instead of ${COMMANDS[command].name}`);
        }
        const left = deadline - performance.now();
        const more = new Promise((resolve) => {
          this.#wake = () => resolve(undefined);
        });
        await soon(COMMANDS[command].name, more, left);
      } else if (frame.command === command) {
        return frame;
      } else if (frame.command !== PROGRESS) {
        const text = frame.command === ERROR ? `: ${frame.text}` : '';
        throw new Error(`${COMMANDS[frame.command].name}${text} instead of ${COMMANDS[command].name}`);
      }
    }
  }

  /** All frames up to the first for which this is true. */
  async until(check) {
    const found = [];
    const more = async () => {
      while (!found.some(check)) {
        found.push(...this.#frames.splice(0, 1));
        if (this.#frames.length === 0) {
          await new Promise((resolve) => {
            setTimeout(resolve, 5);
          });
        }
      }
    };
    await soon('a certain frame', more());
    return found;
  }

  /** Reads this many results, as `{ id: { name: value } }`. */
  async results(count) {
    const results = new Map();
    while (results.size < count) {
      for (const { id, fields } of await this.batch()) {
        results.set(id, Object.fromEntries(fields.map(({ name, value }) => [name.toString(), value.toString()])));
      }
    }
    return results;
  }

  /** The results of the next frame with some. */
  async batch() {
    return this.socket.protocol === 'oncecast.2'
      ? (await this.next(RESULTS)).results
      : [await this.next(RESULT)];
  }

  /** The code of the ERROR that ends this connection. */
  async error() {
    const { code } = await this.next(ERROR);
    await soon('the end of the connection', this.closed);
    return code;
  }

  /** Whether nothing but PROGRESS arrives for a while. */
  async isSilent(ms = 100) {
    await new Promise((resolve) => {
      setTimeout(resolve, ms);
    });
    return this.#frames.every(({ command }) => command === PROGRESS);
  }

  drop() {
    this.socket.terminate();
    return this.closed;
  }
}

/** A promise that a test resolves. */
export function gate() {
  let open;
  const promise = new Promise((resolve) => {
    open = resolve;
  });
  return { promise, open };
}
