// What rewriting.py is, with the Node package: it does to each direction what the client's first line, a JSON object, tells it.

import { once } from 'node:events';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { run } from '../../../routers/node/src/index.mjs';

/** Exactly so many bytes; what came with them stays in the stream. */
async function read(stream, count) {
  for (;;) {
    const data = stream.read(count);
    if (data !== null) return data;
    await once(stream, 'readable');
  }
}

const functions = {
  // Each in another of the ways in which a Duplex is used.
  identity(stream) {
    stream.pipe(stream);
  },
  upper(stream) {
    const transform = (data, _, done) => done(null, data.toString('latin1').toUpperCase());
    return pipeline(stream, new Transform({ transform }), stream);
  },
  async double(stream) {
    for await (const data of stream) {
      const twice = Buffer.alloc(2 * data.length, 0);
      data.forEach((byte, index) => twice.fill(byte, 2 * index, 2 * index + 2));
      if (!stream.write(twice)) await once(stream, 'drain');
    }
  },
  /** Says all it has to say when the source has ended. */
  last(stream) {
    let count = 0;
    stream.on('data', (data) => (count += data.length)).on('end', () => stream.end(`${count} bytes`));
  },
  async swallow(stream) {
    for await (const _ of stream);
  },
  async early(stream) {
    stream.write(`enough of ${await read(stream, 4)}`);
  },
  async fail(stream) {
    stream.write(await read(stream, 4));
    throw new RangeError('as told');
  },
  async die(stream) {
    stream.write(await read(stream, 4));
    process.exit(3);
  },
  /** Changes the first four bytes and leaves. */
  async leave(stream) {
    stream.write(`<${(await read(stream, 4)).toString('latin1')}>`, 'latin1');
    await stream.detach();
  },
};

run({
  proxy(data) {
    const end = data.indexOf('\n');
    if (end < 0) return null;
    const order = JSON.parse(data.subarray(0, end).toString());
    return { consume: end + 1, extra: order, ...order.verdict };
  },
  rewriteRequest: (stream, extra) => functions[extra.request ?? 'identity'](stream),
  rewriteResponse: (stream, extra) => functions[extra.response ?? 'identity'](stream),
});
