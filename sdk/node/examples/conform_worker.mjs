/**
 * The handler that `oncecast conform --conformance-handler` asks for: a message says how it ends.
 *
 *     node conform_worker.mjs 127.0.0.1:6969 conform [OPTIONS]
 *
 * OPTIONS are further settings as JSON, such as '{"linkSecretFile":"/etc/oncecast/link-secret"}'.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Consumer, Reject, Retry } from 'oncecast';

const [listen = '127.0.0.1:6969', group = 'conform', options = '{}'] = process.argv.slice(2);

const consumer = new Consumer(async (delivery) => {
  const body = delivery.json();
  await sleep(body.ms ?? 0);
  const reason = body.reason ?? 'as the body asks';
  switch (body.conform) {
    case 'nothing':
      return undefined;
    case 'retry':
      throw new Retry(reason, { afterMs: body.delay_ms });
    case 'reject':
      throw new Reject(reason);
    case 'throw':
      throw new Error(reason);
    default:
      return { conform: 'ok', ...body.fields };
  }
}, { listen, group, ...JSON.parse(options) });

await consumer.run();
