// Write the routing logic of the tproxy TCP proxy in JavaScript. README.md beside this folder says how.

import { Buffer } from 'node:buffer';
import { Console } from 'node:console';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

import { rewrite } from './streams.mjs';
import { byteText, encode } from './verdict.mjs';
import { log, Wire } from './wire.mjs';

const PROTOCOL = 1;
const EVENTS = ['connect', 'silence', 'eof', 'timeout'];
/** tproxy keeps a little less of an error's text. */
const ERROR_TEXT_MAX = 300;
/** What is told before a tproxy has greeted us waits for it, the latest of it at least. */
const WAITING_MAX = 1024;

/** The conversations that have begun, and what waits for the first of them. */
const conversations = new Set();
const waiting = [];

/**
 * Be a router: answer tproxy's questions until tproxy is done with us.
 *
 * `proxy(data, question)` returns a verdict, or a promise of one. The other functions may be left out.
 */
export function run(options) {
  const router = checked(typeof options === 'function' ? { proxy: options } : options);
  const listener = listenerFor(router.listen);
  if (listener !== null) {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => new Conversation(router, socket));
    server.on('error', (error) => {
      log(`cannot listen: ${error.message}`);
      process.exitCode = 1;
    });
    listen(server, listener);
    return;
  }
  let socket;
  try {
    socket = new net.Socket({ fd: 0, readable: true, writable: true, allowHalfOpen: true });
  } catch {
    socket = null;
  }
  if (socket === null || !fs.fstatSync(0).isSocket()) {
    const script = path.basename(process.argv[1] ?? 'route.mjs');
    log(`standard input is not a socket from tproxy; start this router with: tproxy --router 'node ${script}'`);
    process.exitCode = 1;
    return;
  }
  // Descriptor 1 is the same socket: what is printed is a line of the log, and not of the protocol.
  globalThis.console = new Console(process.stderr, process.stderr);
  process.stdout.write = process.stderr.write.bind(process.stderr);
  // Ctrl-C goes to the whole terminal; tproxy decides when its routers end.
  process.on('SIGINT', () => {});
  new Conversation(router, socket);
}

/** Cached verdicts are no longer right: `{ all: true }`, or `{ key, value }`. */
export function invalidate({ all, key, value }) {
  if (all === true && key === undefined && value === undefined) return tell('invalidate', { all: true });
  if (all || key === undefined || value === undefined) throw new TypeError('invalidate: either all: true, or key and value');
  return tell('invalidate', { key, value: key === 'data' ? byteText('value', value) : String(value) });
}

/** End live connections, on all workers: `{ connection }`, `{ tag }` or `{ remote }`, with `reset: true` by a reset. */
export function close({ connection, tag, remote, reset }) {
  const which = Object.entries({ connection, tag, remote }).filter(([, value]) => value !== undefined);
  if (which.length !== 1) throw new TypeError('close: exactly one of connection, tag and remote');
  return tell('close', { ...Object.fromEntries(which), ...(reset ? { reset: true } : {}) });
}

function tell(method, params) {
  for (const conversation of conversations) conversation.wire.put({ method, params });
  if (conversations.size > 0) return;
  waiting.push({ method, params });
  if (waiting.length > WAITING_MAX) waiting.shift();
}

function checked(options) {
  const router = { events: [], maxInFlight: 1024, name: path.basename(process.argv[1] ?? 'node'), ...options };
  for (const name of ['proxy', 'proxyError', 'closed', 'rewriteRequest', 'rewriteResponse']) {
    const isFunction = typeof router[name] === 'function';
    if (!isFunction && (name === 'proxy' || router[name] !== undefined)) throw new TypeError(`${name} must be a function`);
  }
  for (const event of router.events) {
    if (event !== 'data' && !EVENTS.includes(event)) throw new TypeError(`events: ${event} is none of ${EVENTS.join(', ')}`);
  }
  return router;
}

/** A path, or the descriptor that systemd hands over; null when tproxy has started us. */
function listenerFor(address) {
  if (address !== undefined) return { path: String(address).replace(/^unix:/, '') };
  if (process.env.LISTEN_PID !== String(process.pid) || process.env.LISTEN_FDS !== '1') return null;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  return { fd: 3 };
}

function listen(server, listener) {
  if (listener.fd !== undefined) return server.listen(listener);
  const begin = () => {
    // Nobody but our own user may connect, from the first moment on.
    const mask = process.umask(0o177);
    server.listen(listener);
    process.umask(mask);
  };
  const probe = net.connect(listener.path);
  probe.on('connect', () => {
    probe.destroy();
    begin(); // and fail, for somebody is there
  });
  probe.on('error', (error) => {
    if (error.code === 'ECONNREFUSED' && fs.statSync(listener.path).isSocket()) fs.unlinkSync(listener.path);
    begin();
  });
  return server;
}

/** One conversation with a tproxy. */
class Conversation {
  #router;
  /** The open questions, by id, to be told when nobody waits for their answers any more. */
  #open = new Map();
  /** Descriptors on their way to tproxy, by the question they answer. */
  #files = new Map();
  #streams = '';
  #hasEnded = false;

  constructor(router, socket) {
    this.#router = router;
    this.wire = new Wire(socket, (message) => this.#hear(message), () => this.#end());
  }

  #hear(message) {
    const { id, method, params } = message;
    if (id === undefined) return this.#notice(method, params);
    if (method === 'hello') return this.#greet(id, params);
    if (method === 'proxy' && typeof params?.data === 'string') return this.#ask(id, method, params);
    if (method === 'proxy_error' && this.#router.proxyError && params) return this.#ask(id, method, params);
    const known = method === 'proxy' || (method === 'proxy_error' && this.#router.proxyError);
    return this.#fail(id, known ? -32602 : -32601, known ? 'Invalid params' : 'Method not found');
  }

  #greet(id, params) {
    const { name, events, maxInFlight, proxyError, closed, rewriteRequest, rewriteResponse } = this.#router;
    const methods = ['proxy', proxyError && 'proxy_error', 'cancel', 'shutdown', 'taken', closed && 'closed'];
    methods.push(rewriteRequest && 'rewrite_request', rewriteResponse && 'rewrite_response');
    this.#streams = params?.streams;
    const result = {
      protocol: PROTOCOL,
      name: Buffer.from(name).subarray(0, 128).toString(),
      methods: methods.filter(Boolean),
      events: events.filter((event) => event !== 'data'),
      max_in_flight: maxInFlight,
    };
    this.wire.put({ id, result });
    conversations.add(this);
    for (const told of waiting.splice(0)) this.wire.put(told);
  }

  #notice(method, params) {
    const router = this.#router;
    if (method === 'cancel') {
      this.#open.get(params?.id)?.abort();
    } else if (method === 'taken') {
      closeFile(this.#files.get(params?.id));
      this.#files.delete(params?.id);
    } else if (method === 'closed' && router.closed) {
      this.#tellClosed(params);
    } else if (method === 'rewrite_request' && router.rewriteRequest && params) {
      this.#rewrite(params, router.rewriteRequest);
    } else if (method === 'rewrite_response' && router.rewriteResponse && params) {
      this.#rewrite(params, router.rewriteResponse);
    }
  }

  async #tellClosed(params) {
    try {
      await this.#router.closed(params);
    } catch (error) {
      log(error?.stack ?? String(error));
    }
  }

  #rewrite(params, rewriter) {
    const say = (method) => this.wire.putThrough({ method, params: { token: params.token } });
    rewrite(this.#streams, params, (stream) => rewriter(stream, params.extra), say);
  }

  async #ask(id, method, params) {
    const abort = new AbortController();
    this.#open.set(id, abort);
    try {
      let returned;
      if (method === 'proxy') {
        const data = Buffer.from(params.data, 'latin1');
        returned = await this.#router.proxy(data, this.#question(id, params, data, abort.signal));
      } else {
        returned = await this.#router.proxyError(params);
        if (typeof returned === 'string' || ArrayBuffer.isView(returned)) returned = { close: returned };
      }
      const { result, file } = encode(returned);
      if (file !== null) this.#files.set(id, file);
      this.wire.put({ id, result });
    } catch (error) {
      if (!abort.signal.aborted) log(error?.stack ?? String(error));
      const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
      this.#fail(id, -32000, abort.signal.aborted ? 'cancelled' : text.slice(0, ERROR_TEXT_MAX).toWellFormed());
    }
    this.#open.delete(id);
    if (this.#hasEnded && this.#open.size === 0) this.wire.end();
  }

  #question(id, params, data, signal) {
    return {
      ...params,
      data,
      clientHello: params.client_hello,
      /** On the clock of `performance.now()`. */
      deadline: performance.now() + params.deadline_ms,
      /** Aborted when the answer is not wanted any more. */
      signal,
      /** The answer takes up to so many more seconds: tproxy waits that long. */
      progress: (seconds) => this.wire.put({ method: 'progress', params: { id, seconds } }),
    };
  }

  #fail(id, code, message) {
    this.wire.put({ id, error: { code, message } });
  }

  /** No more will come: what is open is answered. */
  #end() {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    conversations.delete(this);
    for (const file of this.#files.values()) closeFile(file);
    this.#files.clear();
    if (this.#open.size === 0) this.wire.end();
  }
}

function closeFile(file) {
  if (typeof file === 'number') fs.close(file, () => {});
  else file?.close().catch(() => {});
}
