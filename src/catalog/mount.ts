/** Cross-repository mount: a link without a transfer, for callers who may read the digest where it is. */
import type { Principal } from "../auth/principal.ts";
import { isDigest } from "../oci/digests.ts";
import { parseRepositoryName } from "../oci/names.ts";
import { BlobRecordStore } from "./blob-record-store.ts";
import type { BlobWriter } from "./blob-writer.ts";
import type { CatalogContext } from "./catalog-context.ts";
import { ProjectStore } from "./project-store.ts";
import type { Project, StoredBlob } from "./registry.ts";

export interface MountRequest {
  readonly repository: string;
  readonly project: Project;
  readonly digest: string;
  readonly from: string | null;
  readonly mayRead: (project: Project) => Promise<boolean>;
  readonly principal: Principal;
}

/** Projects asked for a readable holder when the client names none. */
const HOLDERS_ASKED = 32;

export class Mounter {
  readonly #records: BlobRecordStore;
  readonly #projects: ProjectStore;
  readonly #blobs: BlobWriter;

  constructor(context: CatalogContext, blobs: BlobWriter) {
    this.#records = new BlobRecordStore(context.database);
    this.#projects = new ProjectStore(context.database, context.invalidator);
    this.#blobs = blobs;
  }

  /** Null when it cannot be mounted, whatever the reason: the client uploads then, and learns nothing. */
  async mount(request: MountRequest): Promise<StoredBlob | null> {
    if (!isDigest(request.digest)) return null;
    const target = { projectId: request.project.id, repository: request.repository };
    for (const source of await this.#sources(request)) {
      const linked = await this.#blobs.linkStored(target, request.digest, source);
      if (linked) return linked;
    }
    return null;
  }

  /** Repositories that hold the digest and that the caller may read, best first. */
  async #sources(request: MountRequest): Promise<string[]> {
    if (await this.#records.findLinked(request.repository, request.digest)) return [request.repository];
    if (request.from !== null) {
      const from = parseRepositoryName(request.from);
      if (!from || !(await this.#records.findLinked(from.name, request.digest))) return [];
      const project = await this.#projects.find(from.project);
      return project && (await request.mayRead(project)) ? [from.name] : [];
    }
    const sources: string[] = [];
    for (const holder of await this.#records.holders(request.digest, HOLDERS_ASKED))
      if (await request.mayRead(holder.project)) sources.push(holder.repository);
    return sources;
  }
}
