/** Authentication and its HTTP surfaces over a real database and real sockets, as one process has them. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import type { Router } from "express";
import { ContentList } from "../../src/auth/content-list.ts";
import { createHarborRouter } from "../../api/harbor/harbor.ts";
import { createClientAddresses } from "../../api/http/client-address.ts";
import { silentObserver } from "../../api/http/observer.ts";
import { startServer } from "../../api/server.ts";
import type { Mount } from "../../api/server.ts";
import type { RegistryDirectory } from "../../api/harbor/services.ts";
import { createTokenRouter } from "../../api/token.ts";
import { createEncryption } from "../../src/auth/encryption.ts";
import type { Encryption } from "../../src/auth/encryption.ts";
import type { Invalidations } from "../../src/auth/invalidations.ts";
import { createAuth } from "../../src/auth/open-auth.ts";
import type { Auth, AuthConfig } from "../../src/auth/open-auth.ts";
import type { Principal } from "../../src/auth/principal.ts";
import { ProjectStore } from "../../src/catalog/project-store.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Clock } from "../../src/core/clock.ts";
import type { Database } from "../../src/db/pool.ts";
import { parseRepositoryName } from "../../src/oci/names.ts";
import { loadOpenApi } from "./openapi.ts";
import type { OpenApi } from "./openapi.ts";
import { silentLogger } from "../../src/telemetry/logger.ts";
import type { Logger } from "../../src/telemetry/logger.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export interface TestAuth {
  readonly auth: Auth;
  readonly projects: ProjectStore;
  readonly database: Database;
  readonly clock: Clock;
}

export interface TestAuthOptions {
  readonly database: Database;
  readonly bus: Invalidations;
  readonly config?: Partial<AuthConfig>;
  readonly encryption?: Encryption;
  readonly clock?: Clock;
  readonly logger?: Logger;
}

export const ORIGIN = { remoteAddress: "192.0.2.1" };
export const PASSWORD = "Harbor12345";

const DEFAULTS: AuthConfig = {
  mode: "anonymous-pull",
  tokenTtlSeconds: 1800,
  staleOnDbErrorMs: 300_000,
  createProjectsOnPush: true,
  adminOnly: false,
};

export function testAuth(t: Cleanable, options: TestAuthOptions): TestAuth {
  const { database, bus, clock = systemClock } = options;
  const auth = createAuth({
    database,
    bus,
    config: { ...DEFAULTS, ...options.config },
    encryption: options.encryption ?? createEncryption(randomBytes(32)),
    logger: options.logger ?? silentLogger,
    clock,
  });
  t.after(() => auth.close());
  return { auth, projects: new ProjectStore(database, bus), database, clock };
}

export async function addUser({ auth }: TestAuth, username: string, options: { sysadmin?: boolean } = {}): Promise<number> {
  const passwordHash = await auth.passwords.hash(PASSWORD);
  const profile = { email: `${username}@example.com`, realname: username, comment: "" };
  return (await auth.users.create({ username, passwordHash, ...profile, ...options })).id;
}

export function basic(username: string, password = PASSWORD): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

export function login({ auth }: TestAuth, username: string, password = PASSWORD): Promise<Principal> {
  return auth.registry.authenticate(basic(username, password), ORIGIN);
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- a test looks into whatever was answered
  readonly json: any;
}

export interface TestApi {
  readonly url: string;
  request(method: string, path: string, options?: RequestOptions): Promise<Answer>;
}

export interface RequestOptions {
  readonly as?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  readonly form?: Record<string, string>;
}

export const TEST_ADDRESSES = createClientAddresses({ externalUrl: null, trustedProxies: [] });

export interface FurtherApi {
  readonly registries?: RegistryDirectory;
  /** Behind the conventions of /api/v2.0. */
  readonly routers?: readonly Router[];
  readonly mounts?: readonly Mount[];
}

/** The token service and the Harbor API on a port of their own. */
export async function startApi(t: Cleanable, parts: TestAuth, further: FurtherApi = {}): Promise<TestApi> {
  const { auth, projects, clock } = parts;
  const addresses = TEST_ADDRESSES;
  const resolveProject = async (repository: string): ReturnType<ProjectStore["find"]> => {
    const name = parseRepositoryName(repository);
    return name === null ? null : await projects.find(name.project);
  };
  const server = await startServer({
    host: "127.0.0.1",
    port: 0,
    observer: silentObserver,
    mounts: [
      ...(further.mounts ?? []),
      {
        path: "/service/token",
        operation: "token",
        handler: createTokenRouter({ tokenService: auth.tokenService, addresses, resolveProject }),
      },
      {
        path: "/api",
        operation: "api",
        handler: createHarborRouter(
          {
            auth,
            projects,
            content: { list: new ContentList(parts.database), deleteTag: () => Promise.resolve(false) },
            registries: further.registries ?? null,
            addresses,
            clock,
            version: "0.0.1-test",
            storageProvider: "filesystem",
            health: async () => [
              { name: "database", status: "healthy" },
              { name: "core", status: "healthy" },
            ],
          },
          further.routers,
        ),
      },
    ],
  });
  t.after(() => server.close());
  const document = await loadOpenApi();
  return {
    url: server.url,
    async request(method, path, options = {}) {
      const answer = await send(`${server.url}${path}`, method, options);
      assertDescribed(document, { method, path, answer });
      return answer;
    },
  };
}

/** Every answer in every test is compared with the public description. */
function assertDescribed(document: OpenApi, { method, path, answer }: { method: string; path: string; answer: Answer }): void {
  const operation = document.operationOf(method, path.split("?")[0] ?? "");
  if (operation === null) return;
  const problems = document.checkResponse(operation, answer.status, method === "HEAD" ? undefined : (answer.json ?? answer.text));
  assert.deepEqual(problems, [], `${operation} ${answer.status} ${answer.text}`);
}

async function send(url: string, method: string, options: RequestOptions): Promise<Answer> {
  const headers: Record<string, string> = { ...options.headers };
  if (options.as !== undefined) headers["authorization"] = options.as.includes(" ") ? options.as : basic(options.as);
  let body: string | URLSearchParams | null = null;
  if (options.form) body = new URLSearchParams(options.form);
  else if (options.body !== undefined) {
    headers["content-type"] ??= "application/json";
    body = typeof options.body === "string" ? options.body : JSON.stringify(options.body);
  }
  const response = await fetch(url, { method, headers, body, redirect: "manual" });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json") === true && text !== "";
  return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined };
}
