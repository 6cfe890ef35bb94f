/**
 * From an Authorization header to a principal. A header that was checked once is remembered (Basic by a keyed hash, never in clear), and is
 * good as long as its account is unchanged; the hot path is one hash or none, and two look-ups in memory.
 */
import { hash, randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import { sleep } from "../core/clock.ts";
import type { Clock } from "../core/clock.ts";
import { SlipwayError } from "../core/errors.ts";
import type { Logger } from "../telemetry/logger.ts";
import { isActive, refByKey, refByLogin } from "./accounts.ts";
import type { Account, Accounts } from "./accounts.ts";
import type { LoginThrottle } from "./login-throttle.ts";
import type { Passwords } from "./passwords.ts";
import { ANONYMOUS } from "./principal.ts";
import type { Principal, RequestOrigin, TokenScope } from "./principal.ts";
import type { RobotPermission } from "./roles.ts";
import type { RobotSecrets } from "./robot-secrets.ts";
import { boundsOf } from "./scopes.ts";
import type { Tokens } from "./tokens.ts";

export interface AuthenticatorOptions {
  readonly accounts: Accounts;
  readonly passwords: Passwords;
  readonly robotSecrets: RobotSecrets;
  readonly tokens: Tokens;
  readonly throttle: LoginThrottle;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long a Basic header is known after its password was checked. */
  readonly basicTtlMs?: number;
  readonly maxHeaders?: number;
}

interface KnownHeader {
  readonly accountRef: string;
  readonly expiresAt: number;
  readonly scopes: readonly TokenScope[] | null;
  /** The account as it was when it was last looked at; null for anonymous tokens. */
  account: Account | null;
  principal: Principal;
}

const MAX_HEADER_LENGTH = 16 * 1024;
const ANONYMOUS_SUBJECT = ANONYMOUS.key;

export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #headers: LRUCache<string, KnownHeader>;
  readonly #checking = new Map<string, Promise<Principal>>();
  readonly #salt = randomBytes(32).toString("base64");
  readonly #basicTtlMs: number;
  #failures = 0;
  #successes = 0;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#basicTtlMs = options.basicTtlMs ?? 5 * 60_000;
    this.#headers = new LRUCache({
      max: options.maxHeaders ?? 10_000,
      maxSize: 32 * 1024 * 1024,
      sizeCalculation: (_, key) => key.length + 512,
    });
  }

  peek(header: string | undefined): Principal | undefined {
    if (header === undefined) return ANONYMOUS;
    const known = this.#headers.get(this.#keyOf(header));
    if (known === undefined) return undefined;
    const now = this.#options.clock.now();
    if (now >= known.expiresAt) return undefined;
    if (known.account === null) return known.principal;
    // Another object means that the account was read again: the slow road compares.
    if (this.#options.accounts.peek(known.accountRef) !== known.account) return undefined;
    return known.account.expiresAt === null || now < known.account.expiresAt ? known.principal : undefined;
  }

  async authenticate(header: string | undefined, origin: RequestOrigin, signal?: AbortSignal): Promise<Principal> {
    const known = this.peek(header);
    if (known !== undefined) return known;
    const text = header ?? "";
    if (text.length > MAX_HEADER_LENGTH) throw new SlipwayError("UNAUTHORIZED");
    const key = this.#keyOf(text);
    const confirmed = await this.#confirm(key);
    if (confirmed) return confirmed;
    let checking = this.#checking.get(key);
    if (!checking) {
      checking = this.#check(text, key, origin).finally(() => this.#checking.delete(key));
      this.#checking.set(key, checking);
    }
    return await orAborted(checking, signal);
  }

  /** A login by name and password, for the token service's own forms. */
  async login(username: string, password: string, origin: RequestOrigin): Promise<Account> {
    const { accounts, throttle, logger } = this.#options;
    const attempt = throttle.begin(username, origin.remoteAddress);
    let settled = false;
    try {
      if (attempt.waitMs > 0) await sleep(attempt.waitMs);
      const ref = refByLogin(username);
      const wasKnown = accounts.peek(ref) !== undefined;
      const account = await accounts.find(ref);
      const matches = await this.#matches(username, password, account);
      settled = true;
      if (matches && account !== null && isActive(account, this.#options.clock.now())) {
        attempt.succeeded();
        this.#successes += 1;
        return account;
      }
      // An unknown name has cost a question to the database: so must a known one, or the difference tells which is which.
      if (wasKnown) await accounts.read(ref).catch(() => null);
      const counts = attempt.failed();
      this.#failures += 1;
      logger.warn({ username: username.slice(0, 64), remote: origin.remoteAddress, ...counts }, "login failed");
      throw new SlipwayError("UNAUTHORIZED", { message: "wrong username or password" });
    } finally {
      if (!settled) attempt.abandoned();
    }
  }

  /** Of robots; empty for everybody else. */
  permissionsOf(principal: Principal): readonly RobotPermission[] {
    return principal.kind === "robot" ? (this.#options.accounts.accountOf(principal)?.permissions ?? []) : [];
  }

  stats(): { readonly knownHeaders: number; readonly loginFailures: number; readonly loginSuccesses: number } {
    return { knownHeaders: this.#headers.size, loginFailures: this.#failures, loginSuccesses: this.#successes };
  }

  /** A header that was good before: is its account still the same? */
  async #confirm(key: string): Promise<Principal | undefined> {
    const known = this.#headers.get(key);
    const { clock, accounts } = this.#options;
    if (known === undefined || clock.now() >= known.expiresAt) return undefined;
    if (known.account === null) return known.principal;
    const account = await accounts.find(known.accountRef);
    if (account === null || !sameCredentials(account, known.account) || !isActive(account, clock.now())) {
      this.#headers.delete(key);
      return undefined;
    }
    if (account !== known.account) {
      known.account = account;
      known.principal = accounts.principalOf(account, known.scopes);
    }
    return known.principal;
  }

  async #check(header: string, key: string, origin: RequestOrigin): Promise<Principal> {
    const space = header.indexOf(" ");
    const scheme = header.slice(0, space).toLowerCase();
    const value = header.slice(space + 1).trim();
    if (scheme === "basic") return await this.#checkBasic(value, key, origin);
    if (scheme === "bearer") return await this.#checkBearer(value, key);
    throw new SlipwayError("UNAUTHORIZED", { message: "the authorization scheme is not known" });
  }

  async #checkBasic(value: string, key: string, origin: RequestOrigin): Promise<Principal> {
    const credentials = parseBasic(value);
    if (credentials === null) throw new SlipwayError("UNAUTHORIZED", { message: "the credentials cannot be read" });
    const account = await this.login(credentials.username, credentials.password, origin);
    const expiresAt = this.#options.clock.now() + this.#basicTtlMs;
    return this.#remember(key, { accountRef: refByLogin(credentials.username), expiresAt, scopes: null, account });
  }

  async #checkBearer(value: string, key: string): Promise<Principal> {
    const { accounts, tokens, clock } = this.#options;
    const claims = await tokens.verify(value);
    const scopes = boundsOf(claims.access);
    if (claims.subject === ANONYMOUS_SUBJECT) {
      const principal: Principal = { ...ANONYMOUS, scopes };
      this.#headers.set(key, { accountRef: "", expiresAt: claims.expiresAt, scopes, account: null, principal });
      return principal;
    }
    const accountRef = refByKey(claims.subject);
    const account = await accounts.find(accountRef);
    if (account === null || account.credentialVersion !== claims.credentialVersion || !isActive(account, clock.now())) {
      throw new SlipwayError("UNAUTHORIZED", { message: "the token was revoked" });
    }
    return this.#remember(key, { accountRef, expiresAt: claims.expiresAt, scopes, account });
  }

  #remember(key: string, header: Omit<KnownHeader, "principal"> & { account: Account }): Principal {
    const principal = this.#options.accounts.principalOf(header.account, header.scopes);
    this.#headers.set(key, { ...header, principal });
    return principal;
  }

  async #matches(username: string, password: string, account: Account | null): Promise<boolean> {
    const { accounts, passwords, robotSecrets } = this.#options;
    const stored = account?.secretHash ?? null;
    return accounts.isRobotLogin(username) ? await robotSecrets.verify(password, stored) : await passwords.verify(password, stored);
  }

  /** A token expires by itself and stands as it is; a password must not lie in memory. */
  #keyOf(header: string): string {
    return header.startsWith("Bearer ") ? header : hash("sha256", this.#salt + header, "base64");
  }
}

/** The password hash stands for its user's credentials too: accounts of the same name before and after a removal differ in it. */
function sameCredentials(one: Account, other: Account): boolean {
  return one.key === other.key && one.credentialVersion === other.credentialVersion && one.secretHash === other.secretHash;
}

export function parseBasic(value: string): { readonly username: string; readonly password: string } | null {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(value)) return null;
  const text = Buffer.from(value, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon <= 0) return null;
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

async function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise;
  promise.catch(() => undefined);
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(new SlipwayError("CANCELLED", { cause: signal.reason }));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
