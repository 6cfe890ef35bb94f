/**
 * Link records in storage: append-only files of JSON lines for each repository, from which rows can be rebuilt when the database is lost.
 * A file is named by the outbox rows in it, so that writing it twice changes nothing; readers drop what overlaps.
 */
import { createHash } from "node:crypto";
import { SlipwayError } from "../core/errors.ts";
import type { BlobStore } from "../storage/blob-store.ts";
import type { LinkRecord } from "./content-records.ts";
import type { OutboxRow } from "./outbox.ts";

export interface NumberedLinkRecord extends LinkRecord {
  /** Order within the repository. */
  readonly seq: number;
}

const ROOT = "links";
/** Longer components do not fit into an object key. */
const LONGEST_COMPONENT = 200;
const NUMBER_WIDTH = 16;
const PAGE = 1_000;

/** Rows of kind link-record, in their order. */
export async function writeLinkRecords(rows: readonly OutboxRow[], store: BlobStore, signal?: AbortSignal): Promise<void> {
  for (const [repository, batch] of Map.groupBy(rows, (row) => row.key)) {
    const ordered = batch.filter((row) => !isFence(row.payload)).toSorted((a, b) => a.id - b.id);
    const first = ordered[0];
    const last = ordered.at(-1);
    if (!first || !last) continue;
    const lines = ordered.map((row) => `${JSON.stringify({ seq: row.id, ...(row.payload as LinkRecord) })}\n`);
    await store.putObject(`${folderOf(repository)}${number(first.id)}-${number(last.id)}.jsonl`, Buffer.from(lines.join("")), signal);
  }
}

/**
 * All records of one repository, each once, file by file. Records that depend on each other come in their order; a blob's may come late,
 * since blobs are linked without a lock on the repository.
 */
export async function* readLinkRecords(repository: string, store: BlobStore, signal?: AbortSignal): AsyncGenerator<NumberedLinkRecord> {
  const prefix = folderOf(repository);
  const seen = new Set<number>();
  let after: string | null = null;
  for (;;) {
    const entries = await store.listObjects(prefix, after, PAGE, signal);
    for (const { key } of entries) {
      const bytes = await store.getObject(key, signal);
      if (!bytes) continue;
      for (const record of parseFile(key, bytes)) {
        if (seen.has(record.seq)) continue;
        seen.add(record.seq);
        yield record;
      }
    }
    const last = entries.at(-1);
    if (entries.length < PAGE || !last) return;
    after = last.key;
  }
}

/** Its payload says nothing: the row itself holds the later ones of its repository back while rows are rebuilt. */
export const FENCE_PAYLOAD = { op: "fence" } as const;

function isFence(payload: unknown): boolean {
  return (payload as { op?: unknown }).op === FENCE_PAYLOAD.op;
}

export interface RecordedRepository {
  readonly name: string;
  /** What comes after it is listed from here. */
  readonly marker: string;
}

/** Repositories with records, in the order of storage. */
export async function* recordedRepositories(
  store: BlobStore,
  after: string | null,
  signal?: AbortSignal,
): AsyncGenerator<RecordedRepository> {
  for (let marker = after; ;) {
    const entries = await store.listObjects(`${ROOT}/`, marker, PAGE, signal);
    for (const { key } of entries) {
      if (marker !== null && key <= marker) continue;
      const folder = key.slice(0, key.lastIndexOf("/_"));
      // Behind every file of this folder, which begin with a digit.
      marker = `${folder}/_~`;
      const name = await nameOf(folder, () => store.getObject(key, signal));
      if (name !== null) yield { name, marker };
    }
    if (entries.length < PAGE) return;
  }
}

async function nameOf(folder: string, read: () => Promise<Buffer | null>): Promise<string | null> {
  const name = folder.slice(ROOT.length + 1);
  if (!name.startsWith("@")) return name;
  const [record] = parseFile(folder, (await read()) ?? Buffer.alloc(0));
  return record?.repository ?? null;
}

/** True when storage has records with lower numbers than this. Looks at one page: it only decides whether a thorough look is worth while. */
export async function hasOlderRecords(store: BlobStore, than: number, signal?: AbortSignal): Promise<boolean> {
  const entries = await store.listObjects(`${ROOT}/`, null, PAGE, signal);
  return entries.some(({ key }) => Number(key.slice(key.lastIndexOf("/_") + 2).split("-")[0]) < than);
}

function parseFile(key: string, bytes: Buffer): NumberedLinkRecord[] {
  try {
    return bytes
      .toString()
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as NumberedLinkRecord);
  } catch (cause) {
    throw new SlipwayError("INTERNAL", { message: `link records in ${key} cannot be read`, cause });
  }
}

/** The underscore keeps files apart from repositories below: no component of a name begins with one. */
function folderOf(repository: string): string {
  const fits = repository.split("/").every((component) => component.length <= LONGEST_COMPONENT);
  const folder = fits ? repository : `@${createHash("sha256").update(repository).digest("hex")}`;
  return `${ROOT}/${folder}/_`;
}

function number(id: number): string {
  return String(id).padStart(NUMBER_WIDTH, "0");
}
