/** What the records of a repository add up to. Records may come in any order: the number decides, for each thing on its own. */
import type { LinkRecord, LinkTarget } from "../content-records.ts";

export interface NumberedRecord extends LinkRecord {
  readonly seq: number;
}

/** Content of a repository that the last record about it has not removed. */
export interface LiveItem {
  /** In the order in which rows can be made: blobs, then manifests, then tags. */
  readonly key: string;
  readonly target: Exclude<LinkTarget, "repository">;
  readonly digest: string;
  readonly tag: string | null;
  readonly size: number | null;
  readonly mediaType: string | null;
  readonly at: string;
}

const RANK = { blob: "1", manifest: "2", tag: "3" } as const;

export class LinkState {
  readonly #last = new Map<string, NumberedRecord>();
  #emptied = 0;

  apply(record: NumberedRecord): void {
    if (record.target === "repository") {
      if (record.op === "remove") this.#emptied = Math.max(this.#emptied, record.seq);
      return;
    }
    const key = itemKey(record);
    const known = this.#last.get(key);
    if (!known || known.seq < record.seq) this.#last.set(key, record);
  }

  /** Those behind the key, in order. */
  live(after: string | null): LiveItem[] {
    const items: LiveItem[] = [];
    for (const [key, record] of this.#last) {
      if (record.target === "repository" || record.op !== "add" || record.seq < this.#emptied || record.digest === undefined) continue;
      if (after !== null && key <= after) continue;
      const { target, digest, tag = null, size = null, mediaType = null, at } = record;
      items.push({ key, target, digest, tag, size, mediaType, at });
    }
    return items.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  }
}

export function itemKey(record: Pick<LinkRecord, "target" | "digest" | "tag">): string {
  if (record.target === "repository") return "0";
  return `${RANK[record.target]}${record.target === "tag" ? (record.tag ?? "") : (record.digest ?? "")}`;
}
