/**
 * Starts programs for tests and for the benchmark: a private Redis, dispatchers, a publisher, consumers. All are ended
 * by `close`.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ATTEMPTS = 10;
const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));

/** The folder with the programs, or null: `ONCECAST_BIN`, or else the release or the debug build. */
export function programs() {
  const given = process.env.ONCECAST_BIN;
  const folders = given ? [given] : [join(ROOT, 'target/release'), join(ROOT, 'target/debug')];
  return folders.find((folder) => ['dispatcher', 'publisher'].every((name) => isProgram(folder, name))) ?? null;
}

/**
 * @param {string} folder
 * @param {string} name
 */
function isProgram(folder, name) {
  try {
    accessSync(join(folder, `oncecast-${name}`), constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * A port on which nobody listens, below those of outgoing connections, which might take it before its program.
 *
 * @returns {Promise<number>}
 */
export function freePort() {
  const port = 15_000 + Math.floor(Math.random() * 17_000);
  return new Promise((resolve) => {
    const server = createServer().on('error', () => resolve(freePort()));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(port)));
  });
}

/**
 * Tries until `check` returns something true, or throws.
 *
 * @template T
 * @param {string} what
 * @param {() => T | Promise<T>} check
 * @param {number} [limitMs]
 * @returns {Promise<NonNullable<T>>}
 */
export async function until(what, check, limitMs = 30_000) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const found = await check();
    if (found) {
      return /** @type {NonNullable<T>} */ (found);
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${limitMs} ms: ${what}`);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
  }
}

export class Cluster {
  folder = mkdtempSync(join(tmpdir(), 'oncecast-node-'));
  /** @type {Set<import('node:child_process').ChildProcess>} */
  #children = new Set();
  #started = 0;

  /**
   * @param {string} bin the folder with the programs
   * @param {number} port of Redis
   */
  constructor(bin, port) {
    this.bin = bin;
    this.port = port;
    this.url = `redis://127.0.0.1:${port}`;
  }

  /**
   * @param {string} bin
   */
  static async start(bin) {
    const cluster = new Cluster(bin, await freePort());
    const { port, folder } = cluster;
    const options = ['--port', `${port}`, '--dir', folder, '--save', '', '--appendonly', 'no', '--bind', '127.0.0.1'];
    const all = [...options, '--client-output-buffer-limit', 'pubsub 256mb 128mb 60'];
    await cluster.spawnReady('redis-server', all, 'Ready to accept connections');
    return cluster;
  }

  /**
   * Starts a program and waits until its log contains a text. If it ends before, it is started again: another process
   * may have the port for a moment, also one that only connects somewhere.
   *
   * @param {string} command
   * @param {string[]} args
   * @param {string} text
   */
  async spawnReady(command, args, text) {
    for (let attempt = 1; ; attempt++) {
      const started = this.spawn(command, args);
      let hasEnded = false;
      started.ended.then(() => {
        hasEnded = true;
      });
      await until(`"${text}" of ${args[0]}`, () => hasEnded || started.log().includes(text));
      if (!hasEnded) {
        return started;
      }
      if (attempt === ATTEMPTS) {
        throw new Error(`${command} ${args.join(' ')} ended: ${started.log()}`);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, 500);
      });
    }
  }

  /**
   * Starts a program whose standard error goes to a file; `log` reads it.
   *
   * @param {string} command
   * @param {string[]} args
   */
  spawn(command, args) {
    this.#started += 1;
    const path = join(this.folder, `${this.#started}.log`);
    const log = openSync(path, 'w');
    // The programs warn of variables that they don't know.
    const { ONCECAST_BIN: _, ...env } = process.env;
    const child = spawn(command, args, { env, stdio: ['ignore', log, log] });
    this.#children.add(child);
    const ended = new Promise((resolve) => {
      child.on('exit', (code, signal) => {
        this.#children.delete(child);
        resolve(code ?? signal);
      });
      child.on('error', resolve);
    });
    return { child, ended, log: () => readFileSync(path, 'utf8') };
  }

  /**
   * @param {string[]} consumers
   * @param {string[]} [args]
   */
  dispatcher(consumers, args = []) {
    const all = ['--redis-url', this.url, '--consumers', consumers.join(','), ...args];
    return this.spawn(join(this.bin, 'oncecast-dispatcher'), all);
  }

  /** @param {string[]} args */
  publisher(args) {
    return this.spawn(join(this.bin, 'oncecast-publisher'), ['--redis-url', this.url, ...args]);
  }

  /**
   * A command to Redis, without the protocol's quoting.
   *
   * @param {string[]} words
   * @returns {Promise<string>}
   */
  redis(...words) {
    return new Promise((resolve, reject) => {
      const child = spawn('redis-cli', ['-p', `${this.port}`, ...words], { stdio: ['ignore', 'pipe', 'ignore'] });
      /** @type {Buffer[]} */
      const parts = [];
      child.stdout.on('data', (part) => parts.push(part));
      child.on('error', reject);
      child.on('close', () => resolve(Buffer.concat(parts).toString().trimEnd()));
    });
  }

  /** @param {string} suffix */
  async pending(suffix = 'messages:pending') {
    return Number(await this.redis('ZCARD', suffix));
  }

  /** The value of a field in each recorded result. @param {string} field */
  async results(field) {
    const lines = (await this.redis('XRANGE', 'messages:processed', '-', '+')).split('\n');
    return lines.filter((_, i) => i > 0 && lines[i - 1] === field);
  }

  async close() {
    const ends = [...this.#children].map((child) => {
      const ended = new Promise((resolve) => {
        child.on('exit', resolve);
      });
      child.kill('SIGKILL');
      return ended;
    });
    await Promise.all(ends);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
