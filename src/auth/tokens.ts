/**
 * Access tokens: signed, short-lived, an identity and an upper bound. Whether the account still exists, and with these credentials, is
 * asked at each use (from memory), so a revocation does not wait for a token to expire.
 */
import { randomBytes } from "node:crypto";
import { decodeProtectedHeader, jwtVerify, SignJWT } from "jose";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import { TOKEN_SERVICE } from "./challenge.ts";
import type { AccessEntry } from "./scopes.ts";
import type { SigningKeys } from "./signing-keys.ts";

const ALGORITHM = "EdDSA";
const ISSUER = "slipway";
const MAX_TOKEN_LENGTH = 16 * 1024;

export interface TokenSubject {
  /** Principal key. */
  readonly key: string;
  readonly name: string;
  readonly credentialVersion: number;
  /** A token does not outlive its account. */
  readonly expiresAt: number | null;
}

export interface IssuedToken {
  readonly token: string;
  readonly expiresInSeconds: number;
  readonly issuedAt: Date;
}

export interface TokenClaims {
  readonly subject: string;
  readonly credentialVersion: number;
  readonly access: readonly AccessEntry[];
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export class Tokens {
  readonly #keys: SigningKeys;
  readonly #clock: Clock;
  readonly #ttlSeconds: number;
  #issued = 0;
  #verified = 0;

  constructor(keys: SigningKeys, options: { clock: Clock; ttlSeconds: number }) {
    this.#keys = keys;
    this.#clock = options.clock;
    this.#ttlSeconds = options.ttlSeconds;
  }

  async issue(subject: TokenSubject, access: readonly AccessEntry[]): Promise<IssuedToken> {
    const key = await this.#keys.current();
    const issuedAt = Math.floor(this.#clock.now() / 1000);
    const left = subject.expiresAt === null ? this.#ttlSeconds : Math.floor(subject.expiresAt / 1000) - issuedAt;
    const expiresInSeconds = Math.max(1, Math.min(this.#ttlSeconds, left));
    const token = await new SignJWT({ access, name: subject.name, ver: subject.credentialVersion })
      .setProtectedHeader({ alg: ALGORITHM, typ: "JWT", kid: key.kid })
      .setIssuer(ISSUER)
      .setAudience(TOKEN_SERVICE)
      .setSubject(subject.key)
      .setJti(randomBytes(9).toString("base64url"))
      .setIssuedAt(issuedAt)
      .setNotBefore(issuedAt - 30)
      .setExpirationTime(issuedAt + expiresInSeconds)
      .sign(key.privateKey);
    this.#issued += 1;
    return { token, expiresInSeconds, issuedAt: new Date(issuedAt * 1000) };
  }

  /** Throws UNAUTHORIZED for whatever is not a good token of ours. */
  async verify(token: string): Promise<TokenClaims> {
    this.#verified += 1;
    if (token.length > MAX_TOKEN_LENGTH) throw refused();
    const kid = keyIdOf(token);
    const key = kid === null ? null : await this.#keys.find(kid);
    if (key === null) throw refused();
    const result = await jwtVerify(token, key.publicKey, {
      algorithms: [ALGORITHM],
      issuer: ISSUER,
      audience: TOKEN_SERVICE,
      requiredClaims: ["sub", "exp", "ver", "access"],
      currentDate: new Date(this.#clock.now()),
    }).catch((error: unknown) => {
      throw refused(error);
    });
    const { sub = "", exp = 0, ver, access } = result.payload;
    if (typeof ver !== "number" || !Array.isArray(access)) throw refused();
    return { subject: sub, credentialVersion: ver, access: access as AccessEntry[], expiresAt: exp * 1000 };
  }

  stats(): { readonly issued: number; readonly verified: number } {
    return { issued: this.#issued, verified: this.#verified };
  }
}

function keyIdOf(token: string): string | null {
  try {
    const { kid } = decodeProtectedHeader(token);
    return typeof kid === "string" ? kid : null;
  } catch {
    return null;
  }
}

function refused(cause?: unknown): SlipwayError {
  return new SlipwayError("UNAUTHORIZED", { message: "the token is not valid", cause });
}
