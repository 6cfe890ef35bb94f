/** What the distribution API is built from. */
import type { RegistryAuth } from "../../src/auth/principal.ts";
import type { RegistryReader, RegistryWriter } from "../../src/catalog/registry.ts";
import type { BlobStore } from "../../src/storage/blob-store.ts";
import type { ClientAddresses } from "../http/client-address.ts";
import type { HttpObserver } from "../http/observer.ts";
import type { ContentHandlers, LocalTarget, ProxyTarget, TargetResolver } from "./target.ts";

export interface RegistrySettings {
  /** Accept an image whose layers are not all here, as sparse copies are; false: MANIFEST_BLOB_UNKNOWN. */
  readonly sparseImages: boolean;
  /** Blobs from this size on are redirected to storage where it offers that. */
  readonly redirectMinBytes: number;
}

export interface RegistryServices {
  readonly reader: RegistryReader;
  readonly writer: RegistryWriter;
  readonly auth: RegistryAuth;
  readonly store: BlobStore;
  readonly resolver: TargetResolver;
  readonly addresses: ClientAddresses;
  readonly observer: HttpObserver;
  readonly settings: RegistrySettings;
}

export interface ContentByKind {
  readonly local: ContentHandlers<LocalTarget>;
  readonly proxy: ContentHandlers<ProxyTarget> | null;
}

export const DEFAULT_REGISTRY_SETTINGS: RegistrySettings = { sparseImages: true, redirectMinBytes: 1024 * 1024 };
