/**
 * Memory into which sockets are read, used again and again. Left to Node, each 64 KB of a body got memory of its own, which was collected much later: allocating, touching and
 * collecting it cost three times as much as receiving the bytes. What is never given back belongs to the garbage collector, so forgetting it is no fault; giving back
 * what somebody still looks at is one.
 */
import type { Socket } from "node:net";
import { SharedPool } from "./shared-pool.ts";

/** For a socket that is silent or slow. */
const READ_BYTES = 64 * 1024;
/** After a read that was filled: what costs is the read, not its bytes. In memory that other threads see, so that they can work on what came. */
const LARGE_READ_BYTES = 512 * 1024;
/** Less than this is copied into memory of its own. */
const SMALL_BYTES = 16 * 1024;
const MAX_SPARE = 64;
/** With more in use, reads are small ones. */
const MAX_LARGE = 96;

const spare: Buffer[] = [];
const large = new SharedPool(LARGE_READ_BYTES, MAX_LARGE);
/** Where the bytes end that a reader has of it. */
const lent = new WeakMap<ArrayBufferLike, number>();
/** The read that is just over filled its memory: the same socket has more. */
let hasMore = false;

/** Who takes what a socket reads instead of its stream. */
const takers = new WeakMap<Socket, (chunk: Buffer) => boolean>();

export function takeReads(socket: Socket, take: (chunk: Buffer) => boolean): void {
  takers.set(socket, take);
}

/** For net.connect and tls.connect, which ask for the next memory right after each read. */
export const reusedReads = {
  buffer(): Buffer {
    const isLarge = hasMore;
    hasMore = false;
    return (isLarge ? large.tryTake() : null) ?? spare.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
  },
  callback(this: Socket, count: number, memory: Uint8Array): boolean {
    const whole = Buffer.from(memory.buffer, memory.byteOffset, memory.length);
    const take = takers.get(this);
    if (count < SMALL_BYTES) {
      const copy = Buffer.from(whole.subarray(0, count));
      giveBack(whole);
      return take ? take(copy) : this.push(copy);
    }
    lent.set(whole.buffer, count);
    const bytes = whole.subarray(0, count);
    const goesOn = take ? take(bytes) : this.push(bytes);
    // Last: what reads the chunk may open another connection.
    hasMore = count >= READ_BYTES;
    return goesOn;
  },
};

/** Whether giving it back brings its memory back. */
export function isReused({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  return lent.get(buffer) === byteOffset + byteLength;
}

/** By the last one who had to do with the chunk. Only the chunk with which a read ended brings its memory back: those before it were used before. */
export function recycle(chunk: Uint8Array): void {
  if (!isReused(chunk)) return;
  lent.delete(chunk.buffer);
  giveBack(Buffer.from(chunk.buffer));
}

/** Of a chunk that shares its memory with others in no certain order. */
export function keep({ buffer }: Uint8Array): void {
  lent.delete(buffer);
}

/** What was read from one socket and written to another is used no more. */
export function recycleWritten(socket: Socket): void {
  const write = socket.write.bind(socket) as (chunk: unknown, ...rest: unknown[]) => boolean;
  socket.write = (chunk: unknown, ...rest: unknown[]): boolean => {
    if (rest.length > 0 || !(chunk instanceof Uint8Array) || !lent.has(chunk.buffer)) return write(chunk, ...rest);
    return write(chunk, (error?: Error | null) => {
      if (!error) recycle(chunk);
    });
  };
}

function giveBack(whole: Buffer): void {
  if (whole.length === LARGE_READ_BYTES) large.give(whole);
  else if (spare.length < MAX_SPARE) spare.push(whole);
}
