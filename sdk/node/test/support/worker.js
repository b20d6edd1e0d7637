/**
 * A consumer as a process of its own: `worker.js LISTEN [MODE [OPTIONS]]`, with a mode (block, slow, reject) or
 * an empty one, and further options as JSON. Logs everything to standard error.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Consumer, Reject } from '../../src/index.js';

const [listen, mode, options = '{}'] = process.argv.slice(2);

const consumer = new Consumer(async (delivery) => {
  const { message_id: messageId } = delivery.json();
  if (mode === 'block' && delivery.number === 1) {
    // The thread does nothing else for so long.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_000);
  } else if (mode === 'slow') {
    await sleep(300);
  } else if (mode === 'reject') {
    throw new Reject('not today');
  }
  return { message_id: messageId, number: delivery.number, by: delivery.consumerId };
}, { listen, concurrency: mode === 'slow' ? 4 : 16, logger: console, ...JSON.parse(options) });

await consumer.run();
