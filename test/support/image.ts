/** Small images made by the test itself, as an OCI layout on disk that every client can push. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

export interface BuiltImage {
  readonly manifest: Descriptor;
  readonly manifestBytes: Buffer;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly blobs: ReadonlyMap<string, Buffer>;
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export interface ImageOptions {
  readonly layers?: number;
  readonly layerBytes?: number;
  readonly architecture?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export function buildImage(options: ImageOptions = {}): BuiltImage {
  const blobs = new Map<string, Buffer>();
  const architecture = options.architecture ?? "amd64";
  const diffIds: string[] = [];
  const layers: Descriptor[] = [];
  for (let index = 0; index < (options.layers ?? 2); index += 1) {
    const tar = tarFile(`layer-${index}.bin`, randomBytes(options.layerBytes ?? 2_000));
    const bytes = gzipSync(tar, { level: 1 });
    diffIds.push(sha256(tar));
    layers.push({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: sha256(bytes), size: bytes.length });
    blobs.set(sha256(bytes), bytes);
  }
  const configBytes = Buffer.from(JSON.stringify({ architecture, os: "linux", config: {}, rootfs: { type: "layers", diff_ids: diffIds } }));
  const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha256(configBytes), size: configBytes.length };
  blobs.set(config.digest, configBytes);
  const manifestBytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config,
      layers,
      annotations: options.annotations,
    }),
  );
  const manifest: Descriptor = {
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: sha256(manifestBytes),
    size: manifestBytes.length,
    platform: { os: "linux", architecture },
  };
  return { manifest, manifestBytes, config, layers, blobs };
}

export interface BuiltIndex {
  readonly index: Descriptor;
  readonly indexBytes: Buffer;
  readonly images: readonly BuiltImage[];
}

export function buildIndex(images: readonly BuiltImage[]): BuiltIndex {
  const indexBytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: images.map((image) => image.manifest),
    }),
  );
  return {
    index: { mediaType: "application/vnd.oci.image.index.v1+json", digest: sha256(indexBytes), size: indexBytes.length },
    indexBytes,
    images,
  };
}

/** Writes an OCI layout whose only entry has the given tag. */
export async function writeLayout(folder: string, built: BuiltImage | BuiltIndex, tag = "latest"): Promise<void> {
  const images = "images" in built ? built.images : [built];
  const root = "images" in built ? built.index : built.manifest;
  await mkdir(join(folder, "blobs", "sha256"), { recursive: true });
  const write = (digest: string, bytes: Buffer): Promise<void> => writeFile(join(folder, "blobs", "sha256", digest.slice(7)), bytes);
  for (const image of images) {
    for (const [digest, bytes] of image.blobs) await write(digest, bytes);
    await write(image.manifest.digest, image.manifestBytes);
  }
  if ("images" in built) await write(built.index.digest, built.indexBytes);
  await writeFile(join(folder, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const entry = { ...root, annotations: { "org.opencontainers.image.ref.name": tag } };
  await writeFile(join(folder, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
}

/** One file as a tar archive: header block, padded content, two zero blocks. */
function tarFile(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\0" + "00", 257);
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  const padding = Buffer.alloc((512 - (content.length % 512)) % 512);
  return Buffer.concat([header, content, padding, Buffer.alloc(1024)]);
}
