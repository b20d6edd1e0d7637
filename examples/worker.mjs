// A worker in Node: oncecast-consumer --handler exec -- node worker.mjs
// Each line of standard input is a message, each line of standard output the answer to it.
import { createInterface } from "node:readline";

async function work(payload) {
  const order = JSON.parse(payload);
  return { message_id: order.message_id, length: payload.length };
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  let answer;
  try {
    answer = { ok: await work(message.payload) };
  } catch (error) {
    // A payload that is no JSON fails again; anything else may pass.
    answer = error instanceof SyntaxError ? { reject: String(error) } : { retry: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
