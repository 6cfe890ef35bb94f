/** URLs with a signature in the query (AWS Signature Version 4), valid for a host that may differ from the one we talk to. */
import { createHash, createHmac } from "node:crypto";

export interface PresignRequest {
  readonly endpoint: string;
  readonly bucket: string;
  readonly key: string;
  readonly pathStyle: boolean;
  readonly region: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string | undefined };
  readonly expiresSeconds: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** What encodeURIComponent leaves alone and the signature does not. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

export function encodePath(path: string): string {
  return path.split("/").map(encode).join("/");
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

export function presignGet(request: PresignRequest): string {
  const base = new URL(request.endpoint);
  const host = request.pathStyle ? base.host : `${request.bucket}.${base.host}`;
  const root = base.pathname.replace(/\/$/, "");
  const path = root + encodePath(request.pathStyle ? `/${request.bucket}/${request.key}` : `/${request.key}`);
  const time = new Date(request.now).toISOString().replaceAll(/[-:]|\.\d{3}/g, "");
  const scope = `${time.slice(0, 8)}/${request.region}/s3/aws4_request`;
  const { accessKeyId, secretAccessKey, sessionToken } = request.credentials;
  const parameters: [string, string][] = [
    ["X-Amz-Algorithm", "AWS4-HMAC-SHA256"],
    ["X-Amz-Credential", `${accessKeyId}/${scope}`],
    ["X-Amz-Date", time],
    ["X-Amz-Expires", String(request.expiresSeconds)],
    ...(sessionToken === undefined ? [] : [["X-Amz-Security-Token", sessionToken] satisfies [string, string]]),
    ["X-Amz-SignedHeaders", "host"],
  ];
  const query = parameters.map(([name, value]) => `${encode(name)}=${encode(value)}`).join("&");
  const canonical = `GET\n${path}\n${query}\nhost:${host}\n\nhost\nUNSIGNED-PAYLOAD`;
  const digest = createHash("sha256").update(canonical).digest("hex");
  const dayKey = hmac(`AWS4${secretAccessKey}`, time.slice(0, 8));
  const signingKey = hmac(hmac(hmac(dayKey, request.region), "s3"), "aws4_request");
  const signature = hmac(signingKey, `AWS4-HMAC-SHA256\n${time}\n${scope}\n${digest}`).toString("hex");
  return `${base.protocol}//${host}${path}?${query}&X-Amz-Signature=${signature}`;
}
