/** A consumer of the Node package: worker.mjs LISTEN ID GROUP */
import { Consumer } from '../../../sdk/node/src/index.js';

const [listen, consumerId, group] = process.argv.slice(2);
const handle = (delivery) => ({ message_id: delivery.json().message_id });
await new Consumer(handle, { listen, consumerId, group, concurrency: 2, prefetch: 256, logger: console }).run();
