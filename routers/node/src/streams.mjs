// Rewriting: the streams that tproxy is dialled back for.

import net from 'node:net';
import { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';

import { log } from './wire.mjs';

/** What the connection's own end looks like from here: no fault of the function. */
const GONE = new Set(['EPIPE', 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED', 'ABORT_ERR']);

/**
 * One direction of a connection: what its source sends is to be read, what its destination is to get is written.
 *
 * `end()` is the end of the stream as it should be, after which nothing more is read. `destroy()` resets the connection.
 */
export class RewriteStream extends Duplex {
  #socket;
  #say;
  #leaving = null;

  /** `say(method)` tells tproxy something of this stream, and resolves when that is written. */
  constructor(socket, params, say) {
    // A stream that has been read to its end is still to be written.
    super({ allowHalfOpen: true, autoDestroy: false });
    /** The connection's id, as in the question. */
    this.connection = params.connection;
    /** `"to_remote"` or `"to_client"`. */
    this.direction = params.direction;
    /** What the verdict had as `extra`. */
    this.extra = params.extra;
    this.#socket = socket;
    this.#say = say;
    socket.on('data', (data) => {
      if (!this.push(data)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => {
      if (!this.writableFinished) this.destroy();
    });
    // The end of a connection is not to end the process, whoever listens.
    this.on('error', () => {});
  }

  /**
   * Leaves: what has not been read goes on as it is, and what comes later passes us by. Resolves when that is done.
   *
   * The stream ends by itself then, whatever becomes of the function that said so.
   */
  detach() {
    this.#leaving ??= this.#leave();
    // Who does not wait for it need not hear either that the connection has gone: that would end the process.
    this.#leaving.catch(() => {});
    return this.#leaving;
  }

  /** Whether `detach()` has been called. */
  get isLeaving() {
    return this.#leaving !== null;
  }

  async #leave() {
    this.unpipe();
    this.removeAllListeners('data');
    this.removeAllListeners('readable');
    this.#say('detach');
    // At once, for a stream that nobody listens to would flow on; it ends soon, when tproxy gives us no more.
    this.pipe(this);
    try {
      await finished(this, { readable: false });
    } catch (error) {
      this.destroy();
      throw error;
    }
  }

  /** `for await`, which may be left early: that is no abort. */
  [Symbol.asyncIterator]() {
    return this.iterator({ destroyOnReturn: false });
  }

  _read() {
    this.#socket.resume();
  }

  _write(data, encoding, written) {
    this.#socket.write(data, encoding, written);
  }

  _writev(chunks, written) {
    this.#socket.cork();
    const last = chunks.length - 1;
    chunks.forEach(({ chunk, encoding }, index) => this.#socket.write(chunk, encoding, index === last ? written : undefined));
    this.#socket.uncork();
  }

  _final(done) {
    // First the word, then the end: the other way round it would be an abort.
    this.#say('stream_end').then(() => {
      if (this.#socket.destroyed) return done();
      this.#socket.end(() => {
        done();
        setImmediate(() => this.destroy());
      });
    }, done);
  }

  _destroy(error, done) {
    this.#socket.destroy();
    done(error);
  }
}

/** Dials back for a stream, and lets a function rewrite it. */
export function rewrite(address, params, call, say) {
  const path = typeof address === 'string' ? address.replace(/^unix:/, '').replace(/^@/, '\0') : '';
  if (path === '') return log('this tproxy has no address for streams');
  const socket = net.connect({ path, allowHalfOpen: true });
  const refused = (error) => log(`cannot dial back to tproxy at ${address} to rewrite: ${error.message}`);
  socket.on('error', refused);
  socket.once('connect', () => {
    socket.off('error', refused);
    socket.write(`${params.token}\n`);
    const stream = new RewriteStream(socket, params, say);
    run(stream, call);
  });
}

/**
 * A promise that resolves is the end of the stream, one that is rejected an abort. Without one the function ends it itself.
 *
 * A stream that is being left is past all that: what it still holds must be written before its end.
 */
function run(stream, call) {
  const failed = (error) => {
    if (!(stream.destroyed && GONE.has(error?.code))) log(error?.stack ?? String(error));
    if (!stream.isLeaving) stream.destroy();
  };
  let returned;
  try {
    returned = call(stream);
  } catch (error) {
    return failed(error);
  }
  if (typeof returned?.then !== 'function') return undefined;
  return returned.then(() => {
    if (!stream.isLeaving && !stream.writableEnded && !stream.destroyed) stream.end();
  }, failed);
}
