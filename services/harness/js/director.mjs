// The test's hand on the processes of its stack; see `tests/it/director.rs` for the orders.
import net from 'node:net';

const port = Number(process.env.PARLANCE_DIRECTOR);
const REPLICAS = Number(process.env.PARLANCE_REPLICAS ?? 2);

/** Gives an order and waits until it is carried out; resolves with the answer. */
export function direct(order) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect({ host: '127.0.0.1', port }, () => socket.write(`${order}\n`));
    socket.on('data', (part) => (answer += part));
    socket.on('error', reject);
    socket.on('close', () => {
      const text = answer.trim();
      if (text === '' || text.startsWith('error')) reject(new Error(`${order}: ${text || 'no answer'}`));
      else resolve(text);
    });
  });
}

/** The number that a query yields. */
export const count = async (query) => Number(await direct(`sql ${query}`));

/** Gives an order to every replica of persistence. */
export const everyPersistence = (order) =>
  Promise.all(Array.from({ length: REPLICAS }, (_, index) => direct(`${order} persistence-${index + 1}`)));
