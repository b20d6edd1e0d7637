import { Consumer } from 'oncecast';

const consumer = new Consumer(async (delivery) => {
  const order = delivery.json();
  return { order: order.id, total: order.price * order.count };
}, { group: 'messages', listen: '127.0.0.1:6969' });

await consumer.run();
