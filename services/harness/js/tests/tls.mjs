// A certificate that is renewed under open connections.
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import tls from 'node:tls';
import { after, test } from 'node:test';
import { closeAll, connect, direct, eventually, gateways, person } from '../client.mjs';
import { direct as order } from '../director.mjs';

after(closeAll);

const [current, next] = JSON.parse(process.env.PARLANCE_CERTIFICATES);

/** What a newcomer is shown. */
function shown() {
  const { hostname, port } = new URL(gateways[0]);
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: hostname, port: Number(port) }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.on('error', reject);
  });
}

test('a renewed certificate is shown to newcomers, and no connection ends', async () => {
  const [alice, bob, carol] = [person('alice'), person('bob'), person('carol')];
  const conversation = await direct(alice, bob);
  const [one, two] = await Promise.all([connect(alice), connect(bob)]);
  assert.match(one.url, /^https:/);
  await Promise.all([one.joins(conversation), two.joins(conversation)]);
  const [id, before] = [one.socket.id, await shown()];

  // A key without its certificate changes nothing.
  copyFileSync(next.key, current.key);
  await order('hang-up gateway-1');
  assert.equal(await shown(), before);
  copyFileSync(next.certificate, current.certificate);
  await order('hang-up gateway-1');
  await eventually('another certificate', async () => (await shown()) !== before);

  const message = await one.sends(conversation, 'still here');
  await two.sees('message:new', (seen) => seen.id === message.id);
  assert.equal(one.socket.id, id);
  assert.deepEqual([...one.disconnects, ...two.disconnects], []);
  await connect(carol);
});
