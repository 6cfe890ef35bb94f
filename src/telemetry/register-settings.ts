/** Whatever is secret among the settings must never be printed, from the first line on. */
import type { Endpoints } from "../app.ts";
import type { Config } from "../config/config.ts";
import { registerSecret } from "./redact.ts";

export function registerSettings(config: Config, endpoints: Endpoints): void {
  const { settings } = config;
  const upstreamSecrets = (config.upstreams ?? []).map(({ password }) => password);
  for (const secret of [
    settings.data.encryption_key,
    settings.auth.admin_password,
    settings.storage.s3_secret_access_key,
    ...upstreamSecrets,
  ]) {
    if (secret !== null) registerSecret(secret);
  }
  for (const url of [endpoints.databaseUrl, settings.redis.url, settings.refresh.old_redis_url]) {
    const password = url !== null && URL.canParse(url) ? decodeURIComponent(new URL(url).password) : "";
    if (password !== "") registerSecret(password);
  }
}
