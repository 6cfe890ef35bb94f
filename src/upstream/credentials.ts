/** Which credential is meant, who may see it, and how it is written. */
import { createHash } from "node:crypto";
import type { UpstreamCredential, UpstreamEndpoint } from "./types.ts";

/** One entry of a docker configuration file. */
export interface DockerAuthEntry {
  readonly auth?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly identitytoken?: string | undefined;
  readonly registrytoken?: string | undefined;
}

/** The order that docker uses: registry token, identity token, user and password. */
export function credentialFromDocker(entry: DockerAuthEntry): UpstreamCredential {
  if (entry.registrytoken) return { type: "bearer", token: entry.registrytoken };
  let { username, password } = entry;
  if (entry.auth && !(username && password)) {
    const text = Buffer.from(entry.auth, "base64").toString("utf8");
    const colon = text.indexOf(":");
    if (colon > 0) {
      username = text.slice(0, colon);
      password = text.slice(colon + 1).replace(/\0+$/, "");
    }
  }
  if (entry.identitytoken) return { type: "identity", token: entry.identitytoken, ...(username ? { username } : {}) };
  // What `docker login` with a refresh token leaves in `auth`.
  if (username === "<token>" && password) return { type: "identity", token: password };
  if (username && password) return { type: "basic", username, password };
  return { type: "none" };
}

export function basicHeader(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}

export function secretsOf(credential: UpstreamCredential | null): string[] {
  switch (credential?.type) {
    case "basic":
      return [credential.password, basicHeader(credential.username, credential.password).slice("Basic ".length)];
    case "identity":
    case "bearer":
      return [credential.token];
    default:
      return [];
  }
}

/** Tells credentials apart without telling what they are. */
export function credentialKey(credential: UpstreamCredential | null): string {
  if (!credential || credential.type === "none") return "anonymous";
  return createHash("sha256").update(JSON.stringify(credential)).digest("hex").slice(0, 16);
}

/** A credential belongs to exact origins: a mirror in front of a registry does not get to see it. */
export function credentialFor(endpoint: UpstreamEndpoint, origin: string, origins: ReadonlySet<string>): UpstreamCredential | null {
  if (!endpoint.credential || endpoint.credential.type === "none") return null;
  return origins.has(origin) ? endpoint.credential : null;
}
