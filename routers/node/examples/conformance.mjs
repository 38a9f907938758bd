// The router of the protocol's transcripts: the same rules in every language.
//
//     tproxy --router 'node conformance.mjs'

import { run } from '../src/index.mjs';

function proxy(data, question) {
  if (question.state?.n === 1) return { close: ['n=1 ', data] };
  const end = data.indexOf('\n');
  if (end < 0) return null;
  const line = data.toString('latin1', 0, end);
  const [, word, rest] = /^(\S*) ?(.*)$/s.exec(line) ?? [];
  if (word === 'remote' && rest) return { remote: rest };
  if (line === 'close') return { close: true };
  if (word === 'bye') return { close: `${rest}\n` };
  if (word === 'file' && rest) return { file: Buffer.from(rest, 'latin1').toString() };
  if (word === 'wait' && /^[1-9][0-9]*$/.test(rest)) return data.length < rest ? { wait: Number(rest) } : { close: data };
  if (line === 'error') throw new Error('asked to fail');
  if (line === 'state') return { reply: 'more\n', consume: 6, state: { n: 1 } };
  return { close: '?\n' };
}

run({ proxy, proxyError: (error) => `502 ${error.type}\n`, name: 'conformance' });
