/** What a registry's fields must be, whoever gives them: REST or the configuration file. Each problem is one text. */
import { X509Certificate } from "node:crypto";
import { SlipwayError } from "../core/errors.ts";

/** Names of Harbor's adapters for registries that speak the distribution protocol. */
export const REGISTRY_TYPES = [
  "ali-acr",
  "aws-ecr",
  "azure-acr",
  "docker-hub",
  "docker-registry",
  "dtr",
  "github-ghcr",
  "gitlab",
  "google-gcr",
  "harbor",
  "huawei-SWR",
  "jfrog-artifactory",
  "quay",
  "tencent-tcr",
  "volcengine-cr",
] as const;

export const CREDENTIAL_TYPES = ["", "basic", "oauth", "secret", "identity", "bearer"] as const;

export const MAX_NAME = 64;
const MAX_URL = 2048;
const MAX_PATTERN = 512;
const MAX_STARS = 10;

/** One spelling for each address: no query, no fragment, no slash at the end; https when no scheme is given. Throws BAD_REQUEST. */
export function normalizeUrl(given: string): string {
  const text = given.trim();
  if (text === "") throw invalid("empty string");
  if (text.length > MAX_URL) throw invalid("invalid URL: it is too long");
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") throw invalid(`invalid HTTP scheme: ${scheme}`);
  const url = URL.parse(scheme === undefined ? `https://${text}` : text);
  if (url === null || url.hostname === "") throw invalid("invalid URL: it has no host");
  if (url.username !== "" || url.password !== "") throw invalid("invalid URL: a user or a password belongs into the credential");
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

export function checkCertificate(pem: string): string | null {
  if (pem.trim() === "") return null;
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  try {
    for (const text of certificates) new X509Certificate(text);
    return certificates.length > 0 ? null : "invalid CA certificate: it is not in PEM format";
  } catch {
    return "invalid CA certificate: it cannot be read";
  }
}

export function checkHost(host: string): string | null {
  return /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?$/.test(host) || /^\[[0-9a-f:]+\](:\d{1,5})?$/.test(host)
    ? null
    : "expected a host name in lower case, with a port if need be";
}

export function checkPattern(pattern: string): string | null {
  if (pattern === "" || pattern.length > MAX_PATTERN) return `expected 1 to ${MAX_PATTERN} characters`;
  if (pattern.split("*").length - 1 > MAX_STARS) return `has more than ${MAX_STARS} stars`;
  if (pattern.includes("..")) return "must not hold ..";
  return null;
}

/** Project at the upstream, or a prefix of it. */
export function checkPath(path: string): string | null {
  return /^[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*(\/[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*)*$/.test(path) && path.length <= 256
    ? null
    : "expected a project name of the upstream";
}

export function typeForHost(host: string): string {
  if (/(^|\.)docker\.(io|com)$/.test(host)) return "docker-hub";
  if (host === "ghcr.io") return "github-ghcr";
  if (host === "quay.io") return "quay";
  if (/(^|\.)gcr\.io$|\.pkg\.dev$/.test(host)) return "google-gcr";
  if (host.endsWith(".azurecr.io")) return "azure-acr";
  if (/\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/.test(host)) return "aws-ecr";
  return "docker-registry";
}

function invalid(message: string): SlipwayError {
  return new SlipwayError("BAD_REQUEST", { message });
}
