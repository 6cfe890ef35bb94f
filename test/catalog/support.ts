// A catalog over a real database and a real disk, and content to fill it with.
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { ANONYMOUS, type Principal } from "../../src/auth/principal.ts";
import { BlobWriter } from "../../src/catalog/blob-writer.ts";
import { type CatalogContext, type CatalogLimits, DEFAULT_CATALOG_LIMITS } from "../../src/catalog/catalog-context.ts";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import type { ManifestPutResult, Project } from "../../src/catalog/registry.ts";
import { CatalogWriter } from "../../src/catalog/writer.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Database } from "../../src/db/pool.ts";
import { MEDIA_TYPES } from "../../src/oci/media-types.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import { FsBlobStore } from "../../src/storage/fs-store.ts";
import { testDatabase } from "../support/services.ts";
import { tempDir } from "../support/temp.ts";

export const PRINCIPAL: Principal = { ...ANONYMOUS, kind: "user", key: "user:7", id: 7, name: "tester" };

export interface Fixture {
  readonly context: CatalogContext;
  readonly database: Database;
  readonly databaseUrl: string;
  readonly store: FsBlobStore;
  readonly writer: CatalogWriter;
  readonly project: Project;
  readonly published: string[];
}

export async function catalogFixture(
  t: TestContext,
  options: { limits?: Partial<CatalogLimits>; wrapStore?: (store: FsBlobStore) => BlobStore } = {},
): Promise<Fixture> {
  const { database, url } = await testDatabase(t);
  const store = await FsBlobStore.open(await tempDir(t));
  const published: string[] = [];
  const context: CatalogContext = {
    database,
    store: options.wrapStore?.(store) ?? store,
    invalidator: { publish: (scopes) => Promise.resolve(void published.push(...scopes)) },
    clock: systemClock,
    limits: { ...DEFAULT_CATALOG_LIMITS, ...options.limits },
    log: { warn: () => undefined },
  };
  const project = await new ProjectStore(database, context.invalidator).create({ name: "team", public: true, ownerId: null });
  return { context, database, databaseUrl: url, store, writer: newWriter(context), project, published };
}

/** Another process as far as the catalog can tell: nothing in memory is shared. */
export function newWriter(context: CatalogContext): CatalogWriter {
  return new CatalogWriter(context, new BlobWriter(context));
}

export function digestOf(bytes: Uint8Array, algorithm = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

export function body(...chunks: (Uint8Array | string)[]): Readable {
  return Readable.from(chunks.map((chunk) => Buffer.from(chunk)));
}

/** Ends with an error after the chunks, as a request does when its connection is cut. */
export function cutBody(...chunks: Uint8Array[]): Readable {
  return Readable.from(
    (async function* () {
      yield* chunks;
      throw new Error("aborted");
    })(),
  );
}

export async function pushBlob(fixture: Fixture, repository: string, bytes: Uint8Array = randomBytes(64)): Promise<string> {
  const digest = digestOf(bytes);
  await fixture.writer.uploadBlob({
    repository,
    project: fixture.project,
    digest,
    source: body(bytes),
    length: bytes.length,
    principal: PRINCIPAL,
  });
  return digest;
}

export interface ImageOptions {
  readonly tags?: readonly string[];
  readonly subject?: { digest: string; mediaType?: string; size?: number };
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface PushedImage {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly config: string;
  readonly layer: string;
}

export async function pushImage(fixture: Fixture, repository: string, options: ImageOptions = {}): Promise<PushedImage> {
  const configBytes = randomBytes(40);
  const layerBytes = randomBytes(100);
  const config = await pushBlob(fixture, repository, configBytes);
  const layer = await pushBlob(fixture, repository, layerBytes);
  const bytes = imageManifest({ config, configSize: 40, layer, layerSize: 100 }, options);
  const { digest } = await putManifest(fixture, repository, bytes, options.tags ?? []);
  return { digest, bytes, config, layer };
}

export function imageManifest(
  content: { config: string; configSize: number; layer: string; layerSize: number },
  options: ImageOptions = {},
): Buffer {
  const { subject, artifactType, annotations } = options;
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociImage,
      ...(artifactType && { artifactType }),
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: content.config, size: content.configSize },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: content.layer, size: content.layerSize }],
      ...(subject && { subject: { mediaType: MEDIA_TYPES.ociImage, size: 2, ...subject } }),
      ...(annotations && { annotations }),
    }),
  );
}

export function indexManifest(children: readonly { digest: string; size: number; [field: string]: unknown }[], extra: object = {}): Buffer {
  const manifests = children.map((child) => ({ mediaType: MEDIA_TYPES.ociImage, ...child }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests, ...extra }));
}

interface PutOptions {
  readonly tags: readonly string[];
  readonly digest?: string;
  readonly contentType?: string;
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
  readonly writer?: CatalogWriter;
}

export function putManifest(
  fixture: Fixture,
  repository: string,
  bytes: Buffer,
  options: readonly string[] | PutOptions,
): Promise<ManifestPutResult> {
  const given: PutOptions = "tags" in options ? options : { tags: options };
  const { writer = fixture.writer, digest = null, contentType, ...rest } = given;
  return writer.putManifest({ repository, project: fixture.project, digest, contentType, bytes, principal: PRINCIPAL, ...rest });
}
