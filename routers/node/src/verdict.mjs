// Verdicts: from what a function returned to the JSON of an answer. Bytes travel as strings with one character each.

import { Buffer } from 'node:buffer';

const BYTES = ['data', 'reply', 'close'];

/**
 * The JSON value of a verdict, and the descriptor that tproxy is to take, with what closes our copy of it.
 * Throws a TypeError that names the key that is wrong.
 */
export function encode(verdict) {
  if (verdict === null || verdict === undefined) return { result: null, file: null };
  if (typeof verdict !== 'object' || Array.isArray(verdict) || isBytes(verdict)) {
    throw new TypeError(`a verdict is an object or null, not ${describe(verdict)}`);
  }
  const result = { ...verdict };
  for (const key of BYTES) {
    const value = result[key];
    if (value === undefined || value === null || typeof value === 'boolean') continue;
    result[key] = Array.isArray(value) ? value.map((part) => byteText(key, part)).join('') : byteText(key, value);
  }
  let file = null;
  const handle = result.file;
  if (typeof handle === 'object' && handle !== null && typeof handle.fd === 'number') {
    result.file = handle.fd;
    file = handle;
  } else if (typeof handle === 'number') {
    file = handle;
  }
  return { result, file };
}

/** Bytes as the text of a message; a string has to be of such characters already. */
export function byteText(key, value) {
  if (isBytes(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1');
  if (typeof value !== 'string') throw new TypeError(`${key}: bytes or a string, not ${describe(value)}`);
  for (const character of value) {
    if (character > '\u00ff') {
      throw new TypeError(`${key}: ${JSON.stringify(character)} is no byte; use Buffer.from(text)`);
    }
  }
  return value;
}

function isBytes(value) {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

function describe(value) {
  if (Array.isArray(value)) return 'a list';
  return isBytes(value) ? 'bytes' : typeof value;
}
