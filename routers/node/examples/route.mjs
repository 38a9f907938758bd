// HTTP is routed by its Host header, to what a table says.
//
//     tproxy --router 'node route.mjs'
//     curl http://one.localhost:5000/

import { run } from '../src/index.mjs';

const REMOTES = new Map([
  ['one.localhost', '127.0.0.1:8001'],
  ['two.localhost', '127.0.0.1:8002'],
]);
const NOT_FOUND = 'HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\nno such host\n';

run((data) => {
  const head = data.toString('latin1');
  const host = /\r\nhost:[ \t]*([^\r\n:]*)[^\r\n]*\r\n/i.exec(head);
  // Not yet, unless the head has ended without one.
  if (host === null && !head.includes('\r\n\r\n')) return null;
  const remote = REMOTES.get(host?.[1].trimEnd().toLowerCase());
  return remote ? { remote } : { close: NOT_FOUND };
});
