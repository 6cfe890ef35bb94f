/** The requests of the distribution API, one function each, over a real socket. */
import { createHash, randomBytes } from "node:crypto";

export const OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";

export type Headers = Readonly<Record<string, string>>;

export interface RequestOptions extends Omit<RequestInit, "headers"> {
  readonly headers?: Headers;
  /** Needed for bodies that are streams. */
  readonly duplex?: "half";
}

export interface Content {
  readonly bytes: Buffer;
  readonly digest: string;
}

export function contentOf(bytes: Buffer | string, algorithm: "sha256" | "sha512" = "sha256"): Content {
  const buffer = Buffer.from(bytes);
  return { bytes: buffer, digest: `${algorithm}:${createHash(algorithm).update(buffer).digest("hex")}` };
}

export function randomContent(size: number, algorithm: "sha256" | "sha512" = "sha256"): Content {
  return contentOf(randomBytes(size), algorithm);
}

export class OciClient {
  readonly #base: string;
  readonly #headers: Headers;

  constructor(base: string, headers: Headers = {}) {
    this.#base = base;
    this.#headers = headers;
  }

  request(path: string, init: RequestOptions = {}): Promise<Response> {
    return fetch(new URL(path, this.#base), { redirect: "manual", ...init, headers: { ...this.#headers, ...init.headers } });
  }

  async start(name: string, query = ""): Promise<Response> {
    return this.request(`/v2/${name}/blobs/uploads/${query}`, { method: "POST" });
  }

  async location(name: string, query = ""): Promise<string> {
    const answer = await this.start(name, query);
    if (answer.status !== 202) throw new Error(`upload was not started: ${answer.status} ${await answer.text()}`);
    return locationOf(answer);
  }

  patch(location: string, body: Buffer, headers: Headers = {}): Promise<Response> {
    return this.request(location, { method: "PATCH", body: new Uint8Array(body), headers });
  }

  finish(location: string, digest: string, body: Buffer = Buffer.alloc(0), headers: Headers = {}): Promise<Response> {
    const join = location.includes("?") ? "&" : "?";
    return this.request(`${location}${join}digest=${encodeURIComponent(digest)}`, { method: "PUT", body: new Uint8Array(body), headers });
  }

  async pushBlob(name: string, content: Content): Promise<void> {
    const answer = await this.request(`/v2/${name}/blobs/uploads/?digest=${content.digest}`, {
      method: "POST",
      body: new Uint8Array(content.bytes),
    });
    if (answer.status !== 201) throw new Error(`blob was not pushed: ${answer.status} ${await answer.text()}`);
  }

  putManifest(name: string, reference: string, bytes: Buffer, headers: Headers = { "content-type": OCI_IMAGE }): Promise<Response> {
    return this.request(`/v2/${name}/manifests/${reference}`, { method: "PUT", body: new Uint8Array(bytes), headers });
  }

  /** A small image with fresh config and layer; returns its manifest. */
  async pushImage(name: string, tag: string, fields: Readonly<Record<string, unknown>> = {}): Promise<Content> {
    const config = randomContent(64);
    const layer = randomContent(512);
    await this.pushBlob(name, config);
    await this.pushBlob(name, layer);
    const manifest = contentOf(JSON.stringify(imageDocument(config, layer, fields)));
    const answer = await this.putManifest(name, tag, manifest.bytes);
    if (answer.status !== 201) throw new Error(`manifest was not pushed: ${answer.status} ${await answer.text()}`);
    return manifest;
  }
}

export function imageDocument(config: Content, layer: Content | null, fields: Readonly<Record<string, unknown>> = {}): object {
  return {
    schemaVersion: 2,
    mediaType: OCI_IMAGE,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: config.digest, size: config.bytes.length },
    layers: layer === null ? [] : [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: layer.digest, size: layer.bytes.length }],
    ...fields,
  };
}

export function locationOf(answer: Response): string {
  const location = answer.headers.get("location");
  if (location === null) throw new Error(`no Location in the answer ${answer.status}`);
  return location;
}

export async function bytesOf(answer: Response): Promise<Buffer> {
  return Buffer.from(await answer.arrayBuffer());
}

/** The one code of an error answer, whose envelope must be exact. */
export async function codeOf(answer: Response): Promise<string> {
  if (answer.headers.get("content-type") !== "application/json") throw new Error(`not an error document: ${answer.status}`);
  const body = (await answer.json()) as { errors: { code: string; message: string }[] };
  const [first, ...rest] = body.errors;
  if (!first || rest.length > 0 || typeof first.message !== "string") throw new Error("not one error in the document");
  return first.code;
}
