// A line of our own in the head of an answer; everything after the head passes by at full speed.
//
//     REMOTE=127.0.0.1:8000 tproxy --router 'node via.mjs'
//     curl -i http://127.0.0.1:5000/

import { run } from '../src/index.mjs';

const REMOTE = process.env.REMOTE ?? '127.0.0.1:8000';

async function rewriteResponse(stream) {
  const first = await readLine(stream);
  if (/^HTTP\/1\.[01] [2-5]/.test(first)) stream.write(`${first}Via: 1.1 tproxy\r\n`, 'latin1');
  else stream.write(first, 'latin1');
  await stream.detach();
}

/** The first line; what came after it is given back to the stream. */
async function readLine(stream) {
  let line = '';
  for await (const data of stream) {
    line += data.toString('latin1');
    const end = line.indexOf('\n') + 1;
    if (end === 0 && line.length < 8192) continue;
    if (end > 0) {
      stream.unshift(Buffer.from(line.slice(end), 'latin1'));
      line = line.slice(0, end);
    }
    break;
  }
  return line;
}

run({ proxy: () => ({ remote: REMOTE }), rewriteResponse });
