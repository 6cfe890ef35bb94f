import { assertSameBytes } from "../../support/bytes.ts";
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, test } from "node:test";
import { isSlipwayError } from "../../../src/core/errors.ts";
import { DEFAULT_FILL_LIMITS, Fill } from "../../../src/proxy/fill/fill.ts";
import type { FillInput } from "../../../src/proxy/fill/fill.ts";
import { changeOf } from "../../../src/proxy/fill/growing.ts";
import { Scribe } from "../../../src/proxy/fill/scribe.ts";
import { readProgress } from "../../../src/proxy/fill/staging-progress.ts";
import { tempDir } from "../../support/temp.ts";

const content = randomBytes(3_000_000);
const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;

const scribe = new Scribe();
after(() => scribe.close());

interface Call {
  readonly start: number;
  readonly end: number | null;
}

function input(
  folder: string,
  overrides: Partial<FillInput> = {},
): { input: FillInput; calls: Call[]; mismatches: string[]; target: string } {
  const calls: Call[] = [];
  const mismatches: string[] = [];
  const target = join(folder, "adopted");
  return {
    calls,
    mismatches,
    target,
    input: {
      digest,
      size: content.length,
      fence: 1,
      folder: join(folder, "staging"),
      scribe,
      limits: DEFAULT_FILL_LIMITS,
      fetch: (range) => {
        calls.push(range);
        return Promise.resolve({
          size: content.length,
          body: Readable.from(chunks(content, range.start, range.end ?? content.length)),
          isPart: range.end !== null,
        });
      },
      mayFetchParts: () => true,
      adopt: (path) => rename(path, target),
      onBytes: () => undefined,
      onMismatch: (found) => void mismatches.push(found),
      ...overrides,
    },
  };
}

async function* chunks(bytes: Buffer, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let position = start; position < end; position += 65_536) {
    await new Promise((resolve) => setImmediate(resolve));
    yield bytes.subarray(position, Math.min(end, position + 65_536));
  }
}

/** Upstream says nothing more from there on. */
async function* stoppingAt(end: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  yield* chunks(content, 0, end);
  await once(signal, "abort");
}

test("a fill of known size is one request, verified and adopted", async (t) => {
  const made = input(await tempDir(t));
  const fill = new Fill(made.input);
  await fill.finished;
  assert.deepEqual(made.calls, [{ start: 0, end: null }]);
  assertSameBytes(await readFile(made.target), content);
});

test("a large blob is fetched in parts side by side, and the digest is still over the whole", async (t) => {
  const made = input(await tempDir(t), { limits: { ...DEFAULT_FILL_LIMITS, parallelFromBytes: 1_000_000, partBytes: 500_000 } });
  await new Fill(made.input).finished;
  assert.equal(made.calls.length, 6);
  assertSameBytes(await readFile(made.target), content);
});

test("an unknown size is learnt at the end", async (t) => {
  const made = input(await tempDir(t), {
    size: null,
    fetch: () => Promise.resolve({ size: null, body: Readable.from(chunks(content, 0, content.length)), isPart: false }),
  });
  const fill = new Fill(made.input);
  await fill.finished;
  assert.equal(fill.size, content.length);
  assertSameBytes(await readFile(made.target), content);
});

test("readers see bytes as they come, but never the last 64 KiB before the digest is right", async (t) => {
  const made = input(await tempDir(t));
  const fill = new Fill(made.input);
  let seen = 0;
  while (fill.state === "running") {
    seen = Math.max(seen, fill.visibleEnd(0));
    assert.ok(fill.isVerified || fill.visibleEnd(0) <= content.length - DEFAULT_FILL_LIMITS.heldBackBytes);
    await changeOf(fill);
  }
  assert.ok(seen > 1_000_000, `bytes were visible while the fill ran (${seen})`);
  assert.equal(fill.visibleEnd(0), content.length);
});

test("wrong bytes are never adopted: one more attempt elsewhere, then an error", async (t) => {
  const wrong = Buffer.from(content);
  wrong[5] = (wrong[5] as number) ^ 1;
  const places: boolean[] = [];
  const made = input(await tempDir(t), {
    fetch: (_range, { elsewhere }) => {
      places.push(elsewhere);
      return Promise.resolve({ size: wrong.length, body: Readable.from(chunks(wrong, 0, wrong.length)), isPart: false });
    },
  });
  await assert.rejects(new Fill(made.input).finished, (error) => isSlipwayError(error, "DIGEST_MISMATCH"));
  assert.deepEqual(places, [false, true]);
  assert.equal(made.mismatches.length, 2);
  await assert.rejects(readFile(made.target));
});

test("a good second address heals a bad first one", async (t) => {
  const wrong = Buffer.from(content).fill(7, 0, 10);
  const made = input(await tempDir(t), {
    fetch: (_range, { elsewhere }) =>
      Promise.resolve({ size: content.length, body: Readable.from(chunks(elsewhere ? content : wrong, 0, content.length)), isPart: false }),
  });
  await new Fill(made.input).finished;
  assert.equal(made.mismatches.length, 1);
  assertSameBytes(await readFile(made.target), content);
});

test("an abandoned fill is resumed by the next owner with the gaps only", async (t) => {
  const folder = await tempDir(t);
  const first = input(folder, {
    fetch: (_range, { signal }) =>
      Promise.resolve({ size: content.length, body: Readable.from(stoppingAt(1_900_000, signal)), isPart: false }),
  });
  const fill = new Fill(first.input);
  while (fill.stagedBytes < 1_500_000) await new Promise((resolve) => setTimeout(resolve, 5));
  await fill.abandon(new Error("shutting down"));
  assert.equal(fill.state, "failed");
  const second = input(folder, { fence: 2 });
  await new Fill(second.input).finished;
  assert.ok((second.calls[0]?.start ?? 0) >= 1_500_000, `resumed at ${second.calls[0]?.start}`);
  assertSameBytes(await readFile(second.target), content);
});

test("a whole blob that its process did not live to adopt is adopted by the next one, and nothing is fetched again", async (t) => {
  const folder = await tempDir(t);
  const killed = new Promise<void>(() => undefined);
  const first = input(folder, { adopt: () => killed });
  const fill = new Fill(first.input);
  const staging = join(folder, "staging");
  for (let looks = 0; (await readProgress(staging, digest))?.verified !== true; looks += 1) {
    assert.ok(looks < 500, "what is whole is on record");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(fill.state, "running");
  const second = input(folder, { fence: 2 });
  await new Fill(second.input).finished;
  assert.deepEqual([first.calls.length, second.calls.length], [1, 0]);
  assertSameBytes(await readFile(second.target), content);
});

test("a body that ends early fails the fill instead of passing as whole", async (t) => {
  const made = input(await tempDir(t), {
    fetch: () => Promise.resolve({ size: content.length, body: Readable.from(chunks(content, 0, 1_000_000)), isPart: false }),
  });
  await assert.rejects(new Fill(made.input).finished, (error) => isSlipwayError(error, "UPSTREAM_INVALID"));
});

test("readers have the bytes before they are written, and a disk that stands still stops the fetch, not the memory's growth", async (t) => {
  const slow = new SlowScribe();
  t.after(() => slow.close());
  const size = 8_000_000;
  const large = randomBytes(size);
  const largeDigest = `sha256:${createHash("sha256").update(large).digest("hex")}`;
  const made = input(await tempDir(t), {
    digest: largeDigest,
    size,
    scribe: slow,
    fetch: () => Promise.resolve({ size, body: Readable.from(chunks(large, 0, size)), isPart: false }),
  });
  const fill = new Fill(made.input);
  while (fill.visibleEnd(0) < 900_000) await changeOf(fill);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(fill.storedEnd(0), 0, "nothing is in the file");
  assert.ok(fill.visibleEnd(0) < 1_300_000, `${fill.visibleEnd(0)} bytes came`);
  const read: Buffer[] = [];
  for (let position = 0; position < 900_000;) {
    const piece = fill.takeRecent(position);
    assert.ok(piece, `nothing at ${position}`);
    read.push(Buffer.from(piece));
    position += piece.length;
  }
  assertSameBytes(Buffer.concat(read).subarray(0, 900_000), large.subarray(0, 900_000));
  slow.goOn();
  await fill.finished;
  assertSameBytes(await readFile(made.target), large);
});

/** Writes nothing before it is told to. */
class SlowScribe extends Scribe {
  #held: (() => void)[] | null = [];

  override write(...args: Parameters<Scribe["write"]>): void {
    if (this.#held) this.#held.push(() => super.write(...args));
    else super.write(...args);
  }

  goOn(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const write of held) write();
  }
}
