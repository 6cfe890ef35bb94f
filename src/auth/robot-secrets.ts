/**
 * Secrets of robots. A generated one has 192 random bits, so one keyed hash protects it; one that a person chose is hashed like a
 * password. A failed check always costs a password check too, whichever kind the robot has and whether it exists.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Encryption } from "./encryption.ts";
import type { Passwords } from "./passwords.ts";

const PREFIX = "$hmac-sha256$";

export class RobotSecrets {
  readonly #key: Buffer;
  readonly #passwords: Passwords;
  readonly #dummy: Buffer;

  constructor(encryption: Encryption, passwords: Passwords) {
    this.#key = encryption.deriveKey("robot-secret");
    this.#passwords = passwords;
    this.#dummy = randomBytes(32);
  }

  generate(): { readonly secret: string; readonly hash: string } {
    const secret = `Aa1${randomBytes(24).toString("base64url")}`;
    return { secret, hash: `${PREFIX}${this.#digest(secret).toString("base64url")}` };
  }

  hashChosen(secret: string): Promise<string> {
    return this.#passwords.hash(secret);
  }

  async verify(secret: string, stored: string | null): Promise<boolean> {
    const generated = stored?.startsWith(PREFIX) === true;
    const expected = generated ? Buffer.from(stored.slice(PREFIX.length), "base64url") : this.#dummy;
    if (timingSafeEqual(this.#digest(secret), expected)) return true;
    return await this.#passwords.verify(secret, generated ? null : stored);
  }

  #digest(secret: string): Buffer {
    return createHmac("sha256", this.#key).update(secret, "utf8").digest();
  }
}
