/**
 * Password hashes (argon2id). A check costs tens of milliseconds and 19 MiB on purpose, so checks run a few at a time in a bounded queue,
 * and a login of an unknown user costs the same as one with a wrong password.
 */
import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { SlipwayError } from "../core/errors.ts";
import { Gate } from "../core/gate.ts";

const runArgon2 = promisify(argon2);

export interface PasswordCost {
  /** KiB. */
  readonly memory: number;
  readonly passes: number;
  readonly parallelism: number;
}

const DEFAULT_COST: PasswordCost = { memory: 19_456, passes: 3, parallelism: 1 };
const SALT_BYTES = 16;
const HASH_BYTES = 32;
/** Longer input is refused before it is hashed. */
export const MAX_PASSWORD_LENGTH = 128;

export interface PasswordsOptions {
  /** Checks at the same time; libuv has four threads for this and for files. */
  readonly concurrency?: number;
  /** Checks that may wait; further ones are answered OVERLOADED. */
  readonly maxWaiting?: number;
  readonly cost?: PasswordCost;
}

export interface PasswordStats {
  readonly verifications: number;
  /** Verifications against no account, for equal cost. */
  readonly dummies: number;
  readonly rejectedByQueue: number;
  readonly waiting: number;
}

export class Passwords {
  readonly #gate: Gate;
  readonly #cost: PasswordCost;
  #verifications = 0;
  #dummies = 0;
  readonly #dummy: string;

  constructor(options: PasswordsOptions = {}) {
    this.#gate = new Gate({
      places: options.concurrency ?? 2,
      maxWaiting: options.maxWaiting ?? 256,
      refusal: { message: "too many logins are waiting", retryAfterSeconds: 2 },
    });
    this.#cost = options.cost ?? DEFAULT_COST;
    // No password has this hash: only the cost of the comparison matters.
    this.#dummy = format(this.#cost, randomBytes(SALT_BYTES), randomBytes(HASH_BYTES));
  }

  async hash(password: string): Promise<string> {
    const salt = randomBytes(SALT_BYTES);
    return await this.#gate.run(async () => format(this.#cost, salt, await derive(password, salt, this.#cost)));
  }

  /** A null hash stands for an unknown account: false, at the cost of a real check. */
  async verify(password: string, stored: string | null): Promise<boolean> {
    if (stored === null) this.#dummies += 1;
    this.#verifications += 1;
    const { cost, salt, hash } = parse(stored ?? this.#dummy);
    return await this.#gate.run(async () => {
      const input = password.length > MAX_PASSWORD_LENGTH ? "" : password;
      const matches = timingSafeEqual(await derive(input, salt, cost), hash);
      return matches && stored !== null && input === password;
    });
  }

  stats(): PasswordStats {
    return {
      verifications: this.#verifications,
      dummies: this.#dummies,
      rejectedByQueue: this.#gate.refused,
      waiting: this.#gate.waiting,
    };
  }
}

function derive(password: string, salt: Buffer, cost: PasswordCost): Promise<Buffer> {
  return runArgon2("argon2id", { message: password, nonce: salt, tagLength: HASH_BYTES, ...cost });
}

function format(cost: PasswordCost, salt: Buffer, hash: Buffer): string {
  const parameters = `m=${cost.memory},t=${cost.passes},p=${cost.parallelism}`;
  return ["", "argon2id", "v=19", parameters, encode(salt), encode(hash)].join("$");
}

const ENCODED = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]{43})$/;

function parse(stored: string): { cost: PasswordCost; salt: Buffer; hash: Buffer } {
  const match = ENCODED.exec(stored);
  if (!match) throw new SlipwayError("INTERNAL", { message: "a stored password hash is not in a known format" });
  const [, memory, passes, parallelism, salt = "", hash = ""] = match;
  return {
    cost: { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) },
    salt: Buffer.from(salt, "base64"),
    hash: Buffer.from(hash, "base64"),
  };
}

/** The encoding of the PHC string format: base64 without padding. */
function encode(bytes: Buffer): string {
  return bytes.toString("base64").replaceAll("=", "");
}

/** The rule that clients of Harbor know: 8 to 128 characters with an upper-case letter, a lower-case letter and a digit. */
export function isAcceptablePassword(password: string): boolean {
  return (
    password.length >= 8 &&
    password.length <= MAX_PASSWORD_LENGTH &&
    /[A-Z]/.test(password) &&
    /[a-z]/.test(password) &&
    /[0-9]/.test(password)
  );
}

export function requireAcceptablePassword(password: string): void {
  if (isAcceptablePassword(password)) return;
  throw new SlipwayError("BAD_REQUEST", {
    message: `a password or secret has 8 to ${MAX_PASSWORD_LENGTH} characters with at least one upper-case letter, one lower-case letter and one digit`,
  });
}

/** A generated password satisfies the rule by its form. */
export function generatePassword(): string {
  return `Aa1${randomBytes(18).toString("base64url")}`;
}
