/**
 * What was made of files, made anew when they have changed.
 *
 * Files that can't be used any more are reported, and what was made of the last ones that could be is kept: a
 * renewal replaces a certificate and its key one after the other.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/** Where Docker and Podman mount secrets, for the only user of a container. */
const MOUNTED_SECRETS = '/run/secrets/';
const OTHERS_READ = 0o004;
const OTHERS_ENTER = 0o001;

/** How soon files that could not be used are read again: what was wrong may not be in them. */
const RETRY_AFTER_MS = 1_000;

/** Why a file can't be used; it names the setting and the file. */
export class FileProblem extends Error {
  /**
   * @param {string} setting
   * @param {string} path
   * @param {string} problem
   */
  constructor(setting, path, problem) {
    super(`${setting}: ${path}: ${problem}`);
    this.name = 'FileProblem';
  }
}

/**
 * Whether every user of the machine can read this file: it, and all folders above, allow it.
 *
 * @param {string} path
 */
export function isExposed(path) {
  try {
    let at = realpathSync(path);
    if (at.startsWith(MOUNTED_SECRETS)) {
      return false;
    }
    let exposed = (statSync(at).mode & OTHERS_READ) !== 0;
    while (exposed && at !== dirname(at)) {
      at = dirname(at);
      exposed = (statSync(at).mode & OTHERS_ENTER) !== 0;
    }
    return exposed;
  } catch {
    return false;
  }
}

/**
 * What a file holds. Opening a pipe would wait for its writer, so it must be a file.
 *
 * @param {string} setting
 * @param {string} path
 * @param {number} mostBytes
 * @throws {FileProblem}
 */
export function read(setting, path, mostBytes) {
  try {
    const found = statSync(path);
    if (!found.isFile()) {
      throw new FileProblem(setting, path, 'it is not a file');
    }
    if (found.size > mostBytes) {
      throw new FileProblem(setting, path, `it has more than ${mostBytes} bytes`);
    }
    return readFileSync(path);
  } catch (error) {
    if (error instanceof FileProblem) {
      throw error;
    }
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    throw new FileProblem(setting, path, code === 'ENOENT' ? 'there is no such file' : message);
  }
}

/** @template T */
export class Watched {
  #stamps;
  #value;
  /** Why they could not be used, and when that was found. */
  #problem = '';
  #foundAt = 0;

  /**
   * @param {string} what names the value in events
   * @param {string[]} paths
   * @param {() => T} make throws a `FileProblem`
   * @param {import('../limiter.js').Event} event
   */
  constructor(what, paths, make, event) {
    this.what = what;
    this.paths = paths;
    this.make = make;
    this.event = event;
    // Before they are read: a change in between is then seen as one.
    this.#stamps = this.#now();
    this.#value = make();
  }

  /** The value of the files as they are now, or of the last ones that could be used. */
  current() {
    const stamps = this.#now();
    const isDue = this.#problem !== '' && performance.now() - this.#foundAt >= RETRY_AFTER_MS;
    if (stamps !== this.#stamps || isDue) {
      this.#stamps = stamps;
      try {
        this.#value = this.make();
        this.#problem = '';
        this.event('info', `${this.what}-read`, { files: this.paths.join(',') });
      } catch (error) {
        const problem = /** @type {Error} */ (error).message;
        if (problem !== this.#problem) {
          const consequence = 'new connections use what was read before';
          this.event('warn', `${this.what}-unusable`, { problem, consequence });
        }
        [this.#problem, this.#foundAt] = [problem, performance.now()];
      }
    }
    return this.#value;
  }

  /** Modified when, rights changed when, size and number of each file. */
  #now() {
    return this.paths.map(stamp).join(' ');
  }
}

/** @param {string} path */
function stamp(path) {
  try {
    const { mtimeNs, ctimeNs, size, ino } = statSync(path, { bigint: true });
    return `${mtimeNs}:${ctimeNs}:${size}:${ino}`;
  } catch {
    return '-';
  }
}
