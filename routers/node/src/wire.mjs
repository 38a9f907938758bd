// The socket to tproxy: JSON lines in, JSON lines out.

import { Buffer } from 'node:buffer';

const NEWLINE = 0x0a;

/** One line on stderr, which tproxy copies to its log. */
export function log(text) {
  process.stderr.write(`tproxy: ${text}\n`);
}

/** Reads messages from a socket and writes lines to it. */
export class Wire {
  #socket;
  #rest = [];
  #lines = [];
  #isDue = false;

  /** `heard` is called with each message, `ended` once when no more will come. */
  constructor(socket, heard, ended) {
    this.#socket = socket;
    socket.on('data', (data) => this.#read(data, heard));
    socket.on('end', ended);
    socket.on('error', ended);
    socket.on('close', ended);
  }

  #read(data, heard) {
    let start = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      this.#rest.push(data.subarray(start, end));
      const line = (this.#rest.length === 1 ? this.#rest[0] : Buffer.concat(this.#rest)).toString('utf8');
      this.#rest = [];
      start = end + 1;
      if (line.trim() === '') continue;
      let message;
      try {
        message = JSON.parse(line);
      } catch (error) {
        log(`skipped a line that is not JSON (${error.message}): ${JSON.stringify(line.slice(0, 200))}`);
        continue;
      }
      if (message === null || typeof message !== 'object' || typeof message.method !== 'string') {
        log(`skipped what is no message: ${line.slice(0, 200)}`);
        continue;
      }
      heard(message);
    }
    if (start < data.length) this.#rest.push(data.subarray(start));
  }

  /** Writes a message, together with all others of this turn of the loop. */
  put(message) {
    this.#lines.push(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
    if (this.#isDue) return;
    this.#isDue = true;
    // After the promises of this turn: most functions decide at once.
    setImmediate(() => this.#flush());
  }

  /** Writes a message, and resolves when it is in the kernel's hands. */
  putThrough(message) {
    this.put(message);
    return new Promise((resolve) => this.#flush(resolve));
  }

  #flush(written) {
    this.#isDue = false;
    const text = this.#lines.join('');
    this.#lines = [];
    if (this.#socket.destroyed || (text === '' && written === undefined)) return written?.();
    this.#socket.write(text, 'utf8', written);
  }

  /** Ends our side, once everything is written. */
  end() {
    this.#flush();
    this.#socket.end();
  }

  /** Another process will not end while the wire is open; nor will this one. */
  destroy() {
    this.#socket.destroy();
  }
}
