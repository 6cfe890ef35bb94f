/** Takes one file out of a zip archive (a Python wheel is one), streaming, with its checksum compared. */
import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { PassThrough, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly compressedSize: number;
  readonly headerOffset: number;
}

const END_SIGNATURE = 0x06054b50;
const ENTRY_SIGNATURE = 0x02014b50;
const LOCAL_HEADER_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;
/** The end record is 22 bytes and a comment of at most 64 KiB. */
const TAIL_BYTES = 22 + 65_535;

export async function extractFromZip(
  archive: string,
  options: { match: (name: string) => boolean; to: string; mode: number },
): Promise<void> {
  const handle = await open(archive, "r");
  try {
    const entry = (await readDirectory(handle)).find((candidate) => options.match(candidate.name));
    if (!entry) throw new Error(`${archive} does not hold the file`);
    if (entry.method !== STORED && entry.method !== DEFLATED) throw new Error(`${archive} uses compression ${entry.method}`);
    const local = await readAt(handle, entry.headerOffset, LOCAL_HEADER_BYTES);
    const start = entry.headerOffset + LOCAL_HEADER_BYTES + local.readUInt16LE(26) + local.readUInt16LE(28);
    let crc = 0;
    const check = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        crc = crc32(chunk, crc);
        done(null, chunk);
      },
    });
    await pipeline(
      createReadStream(archive, { start, end: start + entry.compressedSize - 1 }),
      entry.method === DEFLATED ? createInflateRaw() : new PassThrough(),
      check,
      createWriteStream(options.to, { mode: options.mode, flush: true }),
    );
    if (crc !== entry.crc) throw new Error(`${entry.name} in ${archive} is damaged`);
  } finally {
    await handle.close();
  }
}

async function readDirectory(handle: FileHandle): Promise<Entry[]> {
  const { size } = await handle.stat();
  const tailStart = Math.max(0, size - TAIL_BYTES);
  const tail = await readAt(handle, tailStart, size - tailStart);
  const end = findEnd(tail);
  if (end === -1) throw new Error("not a zip archive");
  const directory = await readAt(handle, tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12));
  const entries: Entry[] = [];
  for (let at = 0; at + 46 <= directory.length && directory.readUInt32LE(at) === ENTRY_SIGNATURE;) {
    const nameLength = directory.readUInt16LE(at + 28);
    entries.push({
      name: directory.toString("utf8", at + 46, at + 46 + nameLength),
      method: directory.readUInt16LE(at + 10),
      crc: directory.readUInt32LE(at + 16),
      compressedSize: directory.readUInt32LE(at + 20),
      headerOffset: directory.readUInt32LE(at + 42),
    });
    at += 46 + nameLength + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  return entries;
}

function findEnd(tail: Buffer): number {
  for (let at = tail.length - 22; at >= 0; at -= 1) {
    if (tail.readUInt32LE(at) === END_SIGNATURE) return at;
  }
  return -1;
}

async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, position);
  if (bytesRead !== length) throw new Error("the zip archive is cut short");
  return buffer;
}
