/**
 * Secrets that must never be printed. A secret is registered the moment it is read; every text that leaves by a log passes through here.
 * Bounded: the oldest are forgotten, since short-lived tokens come without end.
 */
const MAX_SECRETS = 2_000;
const MIN_LENGTH = 6;

const secrets = new Set<string>();

export function registerSecret(value: string): void {
  if (value.length < MIN_LENGTH) return;
  secrets.delete(value);
  secrets.add(value);
  if (secrets.size > MAX_SECRETS) {
    for (const oldest of secrets) {
      secrets.delete(oldest);
      break;
    }
  }
}

export function redact(text: string): string {
  let result = text;
  for (const secret of secrets) if (result.includes(secret)) result = result.replaceAll(secret, "[redacted]");
  // Credentials in URLs are never ours to print, registered or not.
  return result.replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^/\s:@"]+:[^/\s@"]+@/gi, "$1[redacted]@");
}
