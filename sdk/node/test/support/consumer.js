/** A consumer for tests of the link. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Consumer } from '../../src/index.js';

export const QUIET = { error() {}, warn() {} };

/** One that is stopped at the end of the test. */
export async function started(t, handler, options = {}) {
  const consumer = new Consumer(handler, { listen: '127.0.0.1:0', logger: QUIET, drainTimeoutMs: 100, ...options });
  await consumer.start();
  t.after(() => consumer.stop());
  return consumer;
}

export async function becomes(check) {
  const deadline = performance.now() + 10_000;
  while (!check()) {
    assert.ok(performance.now() < deadline, `not in time: ${check}`);
    await sleep(5);
  }
}

export const echo = (delivery) => ({ body: delivery.text() });
