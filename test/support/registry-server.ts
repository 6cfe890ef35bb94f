/** The registry in this process, as the program composes it: a real database, storage on disk, port 0. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { serve } from "../../api/compose.ts";
import type { RunningServer } from "../../api/server.ts";
import { createApp } from "../../src/app.ts";
import type { App } from "../../src/app.ts";
import { loadConfig } from "../../src/config/config.ts";
import { systemClock } from "../../src/core/clock.ts";
import { createLogger } from "../../src/telemetry/logger.ts";
import { testDatabase } from "./services.ts";
import { tempDir } from "./temp.ts";

interface Cleanable {
  after(fn: () => Promise<void> | void): void;
}

export const ADMIN_PASSWORD = "Admin-password-1";

/** What several servers share: the database and the storage. */
export interface RegistryBacking {
  readonly databaseUrl: string;
  readonly dataDir: string;
}

export interface RegistryServerOptions {
  readonly auth?: "open" | "anonymous-pull" | "required";
  /** Another server over the same database and storage. */
  readonly backing?: RegistryBacking;
  readonly roles?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A port to share with other processes; else a free one. */
  readonly port?: number;
}

export interface RegistryServer {
  readonly url: string;
  readonly port: number;
  readonly host: string;
  readonly app: App;
  readonly server: RunningServer;
  readonly backing: RegistryBacking;
}

export async function registryBacking(t: Cleanable): Promise<RegistryBacking> {
  const dataDir = await tempDir(t, "slipway-registry-");
  const { url } = await testDatabase(t, { migrated: false });
  return { databaseUrl: url, dataDir };
}

export async function startRegistry(t: Cleanable, options: RegistryServerOptions = {}): Promise<RegistryServer> {
  const backing = options.backing ?? (await registryBacking(t));
  const config = loadConfig({
    env: {
      SLIPWAY_DATABASE_URL: backing.databaseUrl,
      SLIPWAY_ENCRYPTION_KEY: "17".repeat(32),
      SLIPWAY_DATA_DIR: join(backing.dataDir),
      SLIPWAY_ADMIN_PASSWORD: ADMIN_PASSWORD,
      SLIPWAY_REGISTRY_AUTH: options.auth ?? "open",
      SLIPWAY_PORT: "0",
      SLIPWAY_HOST: "127.0.0.1",
      SLIPWAY_LOG_LEVEL: "error",
      ...options.env,
    },
    roles: options.roles ?? ["proxy"],
  });
  const logger = createLogger({ level: config.settings.log.level, format: "json" });
  const app = await createApp(config, { databaseUrl: backing.databaseUrl, temporalAddress: null }, { clock: systemClock, logger });
  const server = await serve(app, { host: "127.0.0.1", port: options.port ?? 0, reusePort: options.port !== undefined, version: "test" });
  t.after(async () => {
    await server.close();
    await app.close();
    logger.close();
  });
  return { url: server.url, port: server.port, host: `127.0.0.1:${server.port}`, app, server, backing };
}

export function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

export const ADMIN = basic("admin", ADMIN_PASSWORD);

/** A name that no other test of the run uses. */
export function uniqueName(prefix: string): string {
  return `${prefix}${randomBytes(5).toString("hex")}`;
}
