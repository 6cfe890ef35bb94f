/**
 * Docker Hub: content by the registry protocol, names by the API of hub.docker.com, which tells digests and times as well, so that looking costs no
 * pulls. It wants a token of its own for that, which a user and a password (or an access token) give.
 */
import { LRUCache } from "lru-cache";
import { z } from "zod";
import { isSlipwayError, SlipwayError } from "../../core/errors.ts";
import type { UpstreamClient } from "../../upstream/client.ts";
import type { ApiCall, UpstreamEndpoint } from "../../upstream/types.ts";
import type { ArtifactPage } from "./adapter.ts";
import { namesPage, walkProjects } from "./nested-listing.ts";
import type { NamePage } from "./nested-listing.ts";
import type { ProductBuilder, ProductInput } from "./product.ts";
import { calling, isThere } from "./remote-adapter.ts";

const API_ORIGIN = "https://hub.docker.com";
const HUB_HOST = /(^|\.)docker\.(io|com)$/;
const PAGE = 100;
/** Hub's tokens live for a day; a changed password must not outlive this. */
const TOKEN_MS = 10 * 60_000;

const Names = z.object({ next: z.string().nullish(), results: z.array(z.object({ name: z.string() })) });
const Tags = z.object({
  next: z.string().nullish(),
  results: z.array(
    z.object({
      name: z.string(),
      digest: z.string().nullish(),
      media_type: z.string().nullish(),
      tag_last_pushed: z.string().nullish(),
      last_updated: z.string().nullish(),
    }),
  ),
});
const Token = z.object({ access_token: z.string().optional(), token: z.string().optional() });

/** By registry row and its version. */
const tokens = new LRUCache<string, Promise<string | null>>({ max: 100, ttl: TOKEN_MS });

export const dockerHub: ProductBuilder = (input) => {
  const api = new HubApi(input);
  return {
    endpoint: input.endpoint,
    hooks: {
      capabilities: {
        listsDigests: true,
        listsTimes: true,
        deletesTags: true,
        deletesManifests: false,
        minPathElements: 2,
        maxPathElements: 2,
      },
      listRepositories: walkProjects((namespaces) => ({
        projects: async (_, signal) => namesPage(namespaces ?? (await api.namespaces(signal))),
        repositories: (namespace, cursor, signal) => api.repositories(namespace, cursor, signal),
      })),
      listArtifacts: (repository, cursor, signal) => api.tags(repository, cursor, signal),
      deleteTag: (repository, tag, signal) => api.deleteTag(repository, tag, signal),
    },
  };
};

class HubApi {
  readonly #input: ProductInput;
  readonly #endpoint: UpstreamEndpoint;

  constructor(input: ProductInput) {
    this.#input = input;
    const { url } = input.registry;
    const origin = HUB_HOST.test(new URL(url).hostname) ? API_ORIGIN : url;
    this.#endpoint = { ...input.endpoint, urls: [origin], literal: true, credential: null };
  }

  async namespaces(signal: AbortSignal): Promise<string[]> {
    const answer = await this.#call({ method: "GET", path: "/v2/repositories/namespaces/" }, signal);
    return z.object({ namespaces: z.array(z.string()) }).safeParse(answer.json).data?.namespaces ?? [];
  }

  async repositories(namespace: string, cursor: string | null, signal: AbortSignal): Promise<NamePage> {
    const path = `/v2/namespaces/${encodeURIComponent(namespace)}/repositories`;
    const { document, next } = await this.#page(Names, path, cursor, signal);
    return { names: (document?.results ?? []).map(({ name }) => `${namespace}/${name}`), next };
  }

  async tags(repository: string, cursor: string | null, signal: AbortSignal): Promise<ArtifactPage> {
    const [namespace, name] = partsOf(repository);
    const path = `/v2/namespaces/${encodeURIComponent(namespace)}/repositories/${encodeURIComponent(name)}/tags`;
    const { document, next } = await this.#page(Tags, path, cursor, signal);
    const artifacts = (document?.results ?? []).map((tag) => ({
      tag: tag.name,
      digest: tag.digest ? tag.digest : null,
      mediaType: tag.media_type ?? null,
      artifactType: null,
      pushedAt: dateOf(tag.tag_last_pushed ?? tag.last_updated),
      labels: null,
    }));
    return { artifacts, next };
  }

  async deleteTag(repository: string, tag: string, signal: AbortSignal): Promise<boolean> {
    const path = `/v2/repositories/${partsOf(repository).map(encodeURIComponent).join("/")}/tags/${encodeURIComponent(tag)}/`;
    return await isThere(this.#call({ method: "DELETE", path }, signal), "NOT_FOUND");
  }

  /** Pages by number; an absent namespace or repository is an empty page. */
  async #page<T extends { next?: string | null | undefined }>(
    schema: z.ZodType<T>,
    path: string,
    cursor: string | null,
    signal: AbortSignal,
  ): Promise<{ document: T | null; next: string | null }> {
    const page = cursor === null ? 1 : Number(cursor);
    try {
      const answer = await this.#call({ method: "GET", path: `${path}?page=${page}&page_size=${PAGE}` }, signal);
      const parsed = schema.safeParse(answer.json);
      if (!parsed.success) throw new SlipwayError("UPSTREAM_INVALID", { detail: { status: answer.status, reason: "API" } });
      return { document: parsed.data, next: parsed.data.next ? String(page + 1) : null };
    } catch (error) {
      if (isSlipwayError(error, "NOT_FOUND")) return { document: null, next: null };
      throw error;
    }
  }

  async #call(call: ApiCall, signal: AbortSignal): ReturnType<UpstreamClient["api"]> {
    const { registry, pool } = this.#input;
    const key = `${registry.id} ${registry.version}`;
    const login = tokens.get(key) ?? this.#login(signal);
    tokens.set(key, login);
    const token = await login.catch((error: unknown) => {
      tokens.delete(key);
      throw error;
    });
    const client = pool.client({ ...this.#endpoint, credential: token === null ? null : { type: "bearer", token } });
    try {
      return await client.api({ ...call, ...calling(signal) });
    } catch (error) {
      if (isSlipwayError(error, "UPSTREAM_REFUSED")) tokens.delete(key);
      throw error;
    }
  }

  /** Null for a registry without a credential: what is public can be listed. */
  async #login(signal: AbortSignal): Promise<string | null> {
    const { registry, pool } = this.#input;
    if (registry.accessKey === "" || registry.accessSecret === "") return null;
    const client = pool.client(this.#endpoint);
    const call = { method: "POST", anonymous: true, ...calling(signal) } as const;
    const body = { identifier: registry.accessKey, secret: registry.accessSecret };
    const answer = await client.api({ ...call, path: "/v2/auth/token", body, pass: [404, 405, 410] });
    const older = { username: registry.accessKey, password: registry.accessSecret };
    const given = answer.status < 400 ? answer : await client.api({ ...call, path: "/v2/users/login", body: older });
    const document = Token.safeParse(given.json).data;
    const token = document?.access_token ?? document?.token;
    if (!token) throw new SlipwayError("UPSTREAM_REFUSED", { detail: { part: "token" } });
    return token;
  }
}

function partsOf(repository: string): [string, string] {
  const [namespace = "", ...rest] = repository.split("/");
  return rest.length === 0 ? ["library", namespace] : [namespace, rest.join("/")];
}

function dateOf(text: string | null | undefined): Date | null {
  const time = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? null : new Date(time);
}
